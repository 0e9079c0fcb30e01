"""The documents in a source: one JSON document, an array of them, one a line, or the rows of a table; `.gz` and `.zst` too.

Invariant: every document of a source comes out once, in order, or is reported as skipped with its place and the reason; nothing
raises. Lines, array items and rows are read one at a time: memory grows with the largest of them, not with the source.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from swe_srl.trajectories.tables import HUB, MissingPackage, hub_rows, parquet_rows

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20
"""Characters of a JSON array read at a time."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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

    @property
    def place(self) -> str:
        """The file, and the line where there is one."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


def read_documents(path: Path, whole: Callable[[list[Any]], bool] = lambda _: False) -> Iterator[Document | Skipped]:
    """Every document of a source: a UTF-8 JSON file, a parquet file, or `hf:OWNER/DATASET[:SPLIT]`.

    Files that end in `.jsonl` are JSON Lines; others are too when they turn out to be. `whole` says of the first item of a JSON
    array of objects, given as an array of one, that the array is one document.
    """
    try:
        if str(path).startswith(HUB):
            yield from _read_rows(path, hub_rows(str(path)))
        elif path.name.endswith(".parquet"):
            yield from _read_rows(path, parquet_rows(path))
        elif path.name.removesuffix(".gz").removesuffix(".zst").endswith(".jsonl"):
            yield from _read_lines(path)
        else:
            yield from _read_json(path, whole)
    except MissingPackage as error:
        yield Skipped(str(path), None, f"cannot be read: {error}")
    except OSError as error:
        yield Skipped(str(path), None, f"cannot be read: {error.strerror or error}")
    except (EOFError, zlib.error) as error:
        yield Skipped(str(path), None, f"cannot be decompressed: {error}")
    except Exception as error:
        # ZstdError has no base but Exception, and its package may not be there to name it.
        if type(error).__name__ != "ZstdError":
            raise
        yield Skipped(str(path), None, f"cannot be decompressed: {error}")


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if path.suffix != ".zst":
        return path.open("rb")
    try:
        from backports import zstd
    except ImportError:
        raise MissingPackage("backports.zstd") from None
    # zstandard takes a cut file for a whole one; this one, like Python 3.14's own, does not.
    return cast(IO[bytes], zstd.open(path))


def _read_rows(path: Path, rows: Iterator[Any]) -> Iterator[Document | Skipped]:
    count = 0
    try:
        for count, row in enumerate(rows, 1):
            yield Document(row, item=count)
    except (MissingPackage, GeneratorExit):
        raise
    except Exception as error:  # the libraries that read tables raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        yield Skipped(str(path), None, f"cannot be read after {count} rows: {reason}")
    else:
        if not count:
            yield Skipped(str(path), None, "empty table")


def _read_json(path: Path, whole: Callable[[list[Any]], bool]) -> Iterator[Document | Skipped]:
    given = 0
    try:
        with _open(path) as file:
            for given, value in enumerate(_array_items(file), 1):
                if given == 1 and whole([value]):
                    raise _OneDocument
                yield Document(value, item=given)
        return
    except _OneDocument:
        given = 0
    except ValueError:  # no array of objects, or broken from here on: decoding all of it says which, and where
        pass
    yield from _read_whole(path, given)


class _OneDocument(Exception):
    pass


def _array_items(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The items of a JSON array of objects, as they come. Raises ValueError at whatever is not that."""
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    buffer = text.read(_CHUNK)
    position = _after_space(buffer, 0) + 1
    if buffer[position - 1 : position] != "[":
        raise ValueError("no array")
    first = True
    while True:
        start = _after_space(buffer, position)
        mark = buffer[start : start + 1]
        if mark == "]":
            if first or (buffer[start + 1 :] + text.read()).strip():
                raise ValueError("no items, or more than the array")
            return
        if mark == "," and not first:
            start = _after_space(buffer, start + 1)
        elif mark and not first:
            raise ValueError("no comma between items")
        try:
            value, end = decoder.raw_decode(buffer, start)
        except (ValueError, RecursionError):
            more = text.read(max(_CHUNK, len(buffer) - position))
            if not more:
                raise ValueError("not JSON") from None
            buffer, position = buffer[position:] + more, 0
            continue
        if not isinstance(value, dict):
            raise ValueError("an item that is no object")
        if _SURROGATE.search(buffer, start, end):
            json.dumps(value, ensure_ascii=False).encode()
        position, first = end, False
        yield value


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _read_whole(path: Path, given: int = 0) -> Iterator[Document | Skipped]:
    """The one document of a file, JSON Lines under another name, or the items after the first `given` of an array."""
    with _open(path) as file:
        raw = file.read()
    value = _decode(raw)
    if isinstance(value, _Failure):
        if value.json_lines and not given:
            yield from _read_lines(path)
        else:
            yield Skipped(str(path), value.line, value.reason)
    elif given or (
        isinstance(value, list) and any(isinstance(item, dict) for item in value) and not isinstance(value[0], dict)
    ):
        yield from (Document(item, item=i) for i, item in enumerate(value[given:], given + 1))
    else:
        yield Document(value)


def _read_lines(path: Path) -> Iterator[Document | Skipped]:
    offset, empty = 0, True
    with _open(path) as file:
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
        if _SURROGATE.search(text):
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
