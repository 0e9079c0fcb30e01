"""The table itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Union

from .csvtext import parse_csv
from .layout import display_width, pad, truncate, wrap
from .styles import ASCII, Style


@dataclass
class Column:
    """A title and how the cells under it are laid out."""

    title: str
    align: str = "left"
    width: Optional[int] = None
    overflow: str = "wrap"

    def lines(self, text: str) -> list[str]:
        """The lines of one cell, each within the column's width."""
        if self.width is None:
            return text.split("\n")
        if self.overflow == "ellipsis":
            return [truncate(line, self.width) for line in text.split("\n")]
        return wrap(text, self.width)


class Table:
    """Rows of cells under a list of columns (or of plain titles)."""

    def __init__(self, columns: Iterable[Union[Column, str]], style: Style = ASCII):
        self.columns = [Column(c) if isinstance(c, str) else c for c in columns]
        self.style = style
        self.rows: list[list[object]] = []

    @classmethod
    def from_csv(cls, text: str, delimiter: str = ",", style: Style = ASCII) -> Table:
        """A table from CSV text whose first row holds the titles."""
        titles, *rows = parse_csv(text, delimiter)
        table = cls(titles, style)
        for row in rows:
            table.add_row(*row)
        return table

    def add_row(self, *cells: object) -> None:
        """Add one row; cells that are missing at its end are left blank."""
        if len(cells) > len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        blanks = [None] * (len(self.columns) - len(cells))
        self.rows.append([*cells, *blanks])

    def sort_by(self, title: str, reverse: bool = False) -> None:
        """Sort the rows by one column; rows with a blank cell there come last."""
        index = [column.title for column in self.columns].index(title)
        blank = [row for row in self.rows if row[index] in (None, "")]
        filled = [row for row in self.rows if row[index] not in (None, "")]
        filled.sort(key=lambda row: _sort_key(row[index]), reverse=reverse)
        self.rows = filled + blank

    def render(self) -> str:
        """The table as text, without a line break at its end."""
        header = self._cells([column.title for column in self.columns])
        body = [self._cells(row) for row in self.rows]
        widths = [
            max(display_width(line) for row in [header, *body] for line in row[index])
            for index in range(len(self.columns))
        ]
        out = self.style.rule("top", widths)
        out += self._lines(header, widths)
        out += self.style.rule("middle", widths)
        for row in body:
            out += self._lines(row, widths)
        out += self.style.rule("bottom", widths)
        return "\n".join(out)

    def _cells(self, row: list[object]) -> list[list[str]]:
        texts = ["" if cell is None else str(cell) for cell in row]
        return [column.lines(text) for column, text in zip(self.columns, texts)]

    def _lines(self, row: list[list[str]], widths: list[int]) -> list[str]:
        out = []
        for number in range(max(len(lines) for lines in row)):
            cells = [
                pad(lines[number] if number < len(lines) else "", width, column.align)
                for lines, width, column in zip(row, widths, self.columns)
            ]
            out.append(self.style.row(cells))
        return out


def _sort_key(cell: object) -> tuple[int, float, str]:
    """Numbers (and text that reads as one) before all other text."""
    try:
        return (0, float(cell), "")
    except (TypeError, ValueError):
        return (1, 0.0, str(cell).casefold())
