"""Results as tables in the terminal, and what is said meanwhile on standard error."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A column for each name in any row; a cell stays empty where a row does not have it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title)
    for row in rows:
        table.add_row(*(_cell(row.get(name, "")) for name in names))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def say(message: str) -> None:
    """A message beside the results."""
    sys.stderr.write(f"{message}\n")


def _cell(value: object) -> str:
    return f"{value:,}" if type(value) is int else str(value)
