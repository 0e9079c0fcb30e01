"""The JSON documents in a file: one, a JSON array of them, or one a line.

Invariant: every document of a file comes out once, in order, or is reported as skipped with its place and the reason; nothing
raises. JSON Lines are read a line at a time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Document:
    """One decoded JSON document."""

    value: Any
    line: int | None = None
    """Its line in a JSON Lines file, from 1."""
    item: int | None = None
    """Its place in a JSON array, from 1."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or a place in it, from which no trajectory was taken."""

    file: str
    line: int | None
    """The line concerned, from 1, where there is one."""
    reason: str


def read_documents(path: Path) -> Iterator[Document | Skipped]:
    """Every document of a UTF-8 file. Files that end in `.jsonl` are JSON Lines; others are too when they turn out to be."""
    try:
        yield from _read_lines(path) if path.suffix == ".jsonl" else _read_whole(path)
    except OSError as error:
        yield Skipped(str(path), None, f"cannot be read: {error.strerror or error}")


def _read_whole(path: Path) -> Iterator[Document | Skipped]:
    raw = path.read_bytes()
    value = _decode(raw)
    if isinstance(value, _Failure):
        if value.json_lines:
            yield from _read_lines(path)
        else:
            yield Skipped(str(path), value.line, value.reason)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield from (Document(item, item=i) for i, item in enumerate(value, 1))
    else:
        yield Document(value)


def _read_lines(path: Path) -> Iterator[Document | Skipped]:
    offset, empty = 0, True
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            if line == 1 and raw.startswith(_WIDE_BOMS):
                yield Skipped(str(path), None, _decode_reason(raw, 0) or "")
                return
            if raw.strip() and raw.strip() != _BOM:
                empty = False
                value = _decode(raw.rstrip(), offset, one_line=True)
                if isinstance(value, _Failure):
                    yield Skipped(str(path), line, value.reason)
                else:
                    yield Document(value, line=line)
            offset += len(raw)
    if empty:
        yield Skipped(str(path), None, "empty file")


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    line: int | None = None
    json_lines: bool = False
    """True when the first line alone is a document and something follows it."""


def _decode(raw: bytes, offset: int = 0, *, one_line: bool = False) -> Any:
    """The JSON value in `raw`, which starts `offset` bytes into its file, or a _Failure."""
    reason = _decode_reason(raw, offset)
    if reason:
        return _Failure(reason)
    text = raw.removeprefix(_BOM).decode()
    if not text.strip():
        return _Failure("empty file")
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        rest = error.msg == "Extra data" and "\n" not in text[: error.pos].strip()
        place = f"column {error.colno}" if one_line else f"line {error.lineno}, column {error.colno}"
        return _Failure(f"not JSON: {error.msg} at {place}", error.lineno, rest and error.lineno > 1)
    except UnicodeEncodeError as error:
        return _Failure(f"text with half a surrogate pair (\\u{ord(error.object[error.start]):04x})")
    except RecursionError:
        return _Failure("not JSON that can be read: nested too deeply")
    except ValueError as error:
        return _Failure(f"not JSON: {error}")
    return value


def _decode_reason(raw: bytes, offset: int) -> str | None:
    if raw.startswith(_WIDE_BOMS):
        return "not UTF-8: starts with the byte order mark of UTF-16"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}"
    return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
