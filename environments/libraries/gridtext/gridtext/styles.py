"""How a table is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """The pieces of a table.

    A rule is ``(left, fill, cross, right)`` or None when the style has no such
    line. ``edges`` are drawn around each row and ``separator`` between cells.
    """

    edges: tuple[str, str] = ("", "")
    separator: str = "  "
    top: tuple[str, str, str, str] | None = None
    middle: tuple[str, str, str, str] | None = None
    bottom: tuple[str, str, str, str] | None = None

    def rule(self, kind: str, widths: list[int]) -> list[str]:
        """The line called ``kind``, as a list of no or one string."""
        parts = getattr(self, kind)
        if parts is None:
            return []
        left, fill, cross, right = parts
        return [left + cross.join(fill * width for width in widths) + right]

    def row(self, cells: list[str]) -> str:
        left, right = self.edges
        return (left + self.separator.join(cells) + right).rstrip()


_ASCII_RULE = ("+-", "-", "-+-", "-+")

PLAIN = Style(middle=("", "-", "  ", ""))
ASCII = Style(("| ", " |"), " | ", _ASCII_RULE, _ASCII_RULE, _ASCII_RULE)
BOX = Style(
    ("│ ", " │"),
    " │ ",
    ("┌─", "─", "─┬─", "─┐"),
    ("├─", "─", "─┼─", "─┤"),
    ("└─", "─", "─┴─", "─┘"),
)
