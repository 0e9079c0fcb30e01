"""Measuring, cutting and padding text in terminal cells."""

from __future__ import annotations

import unicodedata


def char_width(char: str) -> int:
    """Terminal cells taken by one character: 0, 1 or 2."""
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def display_width(text: str) -> int:
    """Terminal cells taken by a line of text."""
    return sum(char_width(char) for char in text)


def take(text: str, width: int) -> str:
    """The longest beginning of ``text`` that fits in ``width`` cells."""
    for index, char in enumerate(text):
        width -= char_width(char)
        if width < 0:
            return text[:index]
    return text


def pad(text: str, width: int, align: str = "left") -> str:
    """Fill ``text`` with blanks up to ``width`` cells."""
    room = max(width - display_width(text), 0)
    before = {"left": 0, "right": room, "center": room // 2}.get(align)
    if before is None:
        raise ValueError(f"unknown alignment: {align!r}")
    return " " * before + text + " " * (room - before)


def truncate(text: str, width: int, marker: str = "…") -> str:
    """Cut ``text`` to ``width`` cells; ``marker`` ends it if it was cut."""
    if display_width(text) <= width:
        return text
    return take(text, width - display_width(marker)) + marker


def wrap(text: str, width: int) -> list[str]:
    """Break ``text`` into lines of at most ``width`` cells.

    Lines break at blanks; a word that is wider than a whole line is split.
    Line breaks in ``text`` are kept.
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if display_width(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            while len(word) > 1 and display_width(word) > width:
                head = take(word, width) or word[0]
                lines.append(head)
                word = word[len(head):]
            line = word
        lines.append(line)
    return lines
