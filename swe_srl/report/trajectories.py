"""The terminal's tables of what trajectories hold.

Invariant: every number is one of the statistics; a value that there is none of is shown as a dash, never as 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

_SHOWN = 12
"""Tools, models and repositories shown of each list; the JSON has all."""


def statistics_table(data: Mapping[str, Any]) -> Group:
    """Formats side by side, and the most frequent tools, models, scaffolds and repositories."""
    table = Table("format", *_COLUMNS, title="trajectories")
    for name, row in [*data["formats"].items(), ("overall", data["overall"])]:
        table.add_row(name, *(shown(row) for shown in _COLUMNS.values()))
    lists = []
    for kind in ("tools", "models", "scaffolds", "repositories"):
        counts = list(data["overall"][kind].items())
        part = Table(kind, "calls" if kind == "tools" else "trajectories")
        for name, count in counts[:_SHOWN]:
            part.add_row(name, str(count))
        if len(counts) > _SHOWN:
            part.add_row(f"and {len(counts) - _SHOWN} more", str(sum(count for _, count in counts[_SHOWN:])))
        lists.append(part)
    return Group(table, *lists)


def _share(row: Mapping[str, Any]) -> str:
    return "-" if row["malformed_share"] is None else f"{row['malformed']} ({row['malformed_share']:.1%})"


def _length(kind: str) -> Any:
    def shown(row: Mapping[str, Any]) -> str:
        values = row["lengths"].get(kind)
        return f"{values['median']:,} / {values['p90']:,} / {values['max']:,}" if values else "-"

    return shown


_COLUMNS: Mapping[str, Any] = {
    "files": lambda row: str(row["files"]),
    "trajectories": lambda row: str(row["trajectories"]),
    "tasks": lambda row: str(row["tasks"]),
    "steps": lambda row: str(row["steps"]),
    "malformed": _share,
    "resolved / not / unknown": lambda row: " / ".join(str(count) for count in row["outcomes"].values()),
    "steps (median / p90 / max)": _length("steps"),
    "characters": _length("characters"),
    "tokens": _length("tokens"),
    "duplicates (exact, near)": lambda row: ", ".join(str(count) for count in row["duplicates"].values()),
}
