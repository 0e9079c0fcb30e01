"""Comma-separated text, in and out."""

from __future__ import annotations

from typing import Iterable


def parse_csv(text: str, delimiter: str = ",") -> list[list[str]]:
    """Split CSV text into rows of fields; blank lines are skipped.

    A field may be put in double quotes, and then may contain the delimiter,
    line breaks, and double quotes that are written twice.
    """
    rows: list[list[str]] = []
    row: list[str] = []
    field = ""
    quoted = False
    text = text.replace("\r\n", "\n") + "\n"
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if quoted:
            if char != '"':
                field += char
            elif text[position] == '"':
                field += '"'
                position += 1
            else:
                quoted = False
        elif char == '"' and not field:
            quoted = True
        elif char == delimiter:
            row.append(field)
            field = ""
        elif char == "\n":
            if row or field:
                rows.append(row + [field])
            row, field = [], ""
        else:
            field += char
    if quoted:
        raise ValueError("the text ends inside a quoted field")
    return rows


def to_csv(rows: Iterable[Iterable[object]], delimiter: str = ",") -> str:
    """Write rows as CSV text that :func:`parse_csv` reads back."""
    lines = []
    for row in rows:
        lines.append(delimiter.join(_field(cell, delimiter) for cell in row))
    return "".join(line + "\n" for line in lines)


def _field(cell: object, delimiter: str) -> str:
    text = "" if cell is None else str(cell)
    if any(char in text for char in (delimiter, "\n", "\r", '"')):
        return '"' + text.replace('"', '""') + '"'
    return text
