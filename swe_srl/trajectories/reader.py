"""What every trajectory reader shares: its protocol, where a document came from, and checked access to decoded JSON.

Invariant: a reader given any decoded JSON either returns a trajectory or raises DocumentError; no other exception leaves it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

from swe_srl.trajectories.model import Trajectory

T = TypeVar("T")

_NAMES = {dict: "object", list: "array", str: "text", int: "number", float: "number", bool: "true or false", type(None): "null"}


class DocumentError(ValueError):
    """A document is not what its format promises; the message names the place in it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document came from."""

    stem: str
    """The file's name without its suffix; made unique among the files of an import."""
    row: int | None = None
    """Line of a JSON Lines file, or item of a JSON array, counted from 1; None for a file that is one document."""

    @property
    def name(self) -> str:
        """A name for the document among those of an import."""
        return self.stem if self.row is None else f"{self.stem}-{self.row}"


class Reader(Protocol):
    """Reads one trajectory format."""

    name: str
    """The format's name, as `Trajectory.format` and `--format` have it."""

    def detect(self, head: object) -> bool:
        """True when a decoded JSON document is of this format. Never raises."""
        ...

    def read(self, document: Any, origin: Origin) -> Trajectory:
        """The trajectory in a detected document. Raises DocumentError."""
        ...


def expect(value: object, kind: type[T], where: str) -> T:
    """`value`, when it is a `kind` (true and false are no numbers). Raises DocumentError naming `where`."""
    if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise DocumentError(f"{where}: expected {_NAMES[kind]}, found {_NAMES.get(type(value), type(value).__name__)}")


def optional(value: object, kind: type[T], where: str) -> T | None:
    """Like `expect`, and None for null or a missing field."""
    return None if value is None else expect(value, kind, where)


def optional_seconds(value: object, where: str) -> float | None:
    """A number of seconds, or None for null or a missing field. Raises DocumentError."""
    try:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else optional(value, float, where)
    except OverflowError:
        raise DocumentError(f"{where}: too large a number") from None


def mapping_of(document: Mapping[str, Any], key: str, where: str = "") -> dict[str, Any]:
    """The object under `key`, empty when null or missing. Raises DocumentError for anything else."""
    return optional(document.get(key), dict, f"{where}{key}") or {}


def texts_of(value: Mapping[str, Any]) -> dict[str, str]:
    """A mapping's values as text: environment variables are often written as numbers."""
    return {key: item if isinstance(item, str) else json.dumps(item) for key, item in value.items()}


def content_of(value: object, where: str) -> str:
    """A message's text: a text, null, or an array of parts, of which all are text. Raises DocumentError."""
    if value is None or isinstance(value, str):
        return value or ""
    parts = [expect(part, dict, f"{where}[{i}]") for i, part in enumerate(expect(value, list, where))]
    return "".join(expect(part.get("text"), str, f"{where}[{i}].text") for i, part in enumerate(parts))


def is_plain(value: object) -> bool:
    """True when `content_of` keeps everything a message's content holds."""
    return not isinstance(value, list) or all(isinstance(part, dict) and set(part) <= {"type", "text"} for part in value)


def arguments_of(value: object) -> dict[str, Any] | None:
    """A tool call's arguments, given as an object or as JSON text; None when they are neither."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


def loads(text: str) -> Any:
    """The value of a JSON text inside a document. Raises ValueError for what is not JSON that can be written again."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def resolved_of(value: object, where: str = "resolved") -> bool | None:
    """An outcome written as true or false, or as 1 or 0; None for null or a missing field. Raises DocumentError."""
    if value in (0, 1) and isinstance(value, int | float):
        return bool(value)
    return optional(value, bool, where)


def without(document: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The fields of `document` whose key is not among `keys`."""
    dropped = set(keys)
    return {key: value for key, value in document.items() if key not in dropped}
