"""A replay's fidelity as terminal tables, from what `swe-srl replay --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table

_SHOWN = 160
"""Characters of each text at a first difference; the run folder holds all of it."""


def replay_tables(report: Mapping[str, Any]) -> Group:
    """One row a trajectory and one for all; then where each first differs, with both texts."""
    rows, total = report["trajectories"], report["overall"]
    columns = ["trajectory", "steps", "exact", "raw", "any order", "return codes", "similarity", "patch", "tests", "seconds"]
    counts = Table(*columns, *(["marked"] if "marked" in total else []), show_footer=True)
    for row in rows:
        patch = {True: "equal", False: "differs", None: "-"}[row["submission_equal"]]
        counts.add_row(row["id"], *_cells(row), patch, _tests(row["tests"]), f"{row['seconds']:.1f}", *_marked(row))
    patches = _of(total["submissions_equal"], total["submissions_compared"])
    tests = _of(total["resolved"], total["tested"])
    footer = [f"all {total['trajectories']}", *_cells(total), patches, tests, f"{total['seconds']:.1f}", *_marked(total)]
    for column, text in zip(counts.columns, footer, strict=True):
        column.footer = text
    differing = [(row["id"], row["first_difference"]) for row in rows if row["first_difference"]]
    if not differing:
        return Group(counts)
    first = Table("first difference", "line", "recorded", "replayed")
    for name, found in differing:
        first.add_row(f"{name}@{found['k']}", str(found["line"]), found["recorded"][:_SHOWN], found["replayed"][:_SHOWN])
    return Group(counts, first)


def _cells(row: Mapping[str, Any]) -> list[str]:
    counts = [str(row[key]) for key in ("steps", "exact", "exact_raw", "exact_unordered")]
    return [*counts, f"{row['return_codes_matched']}/{row['return_codes_compared']}", f"{row['mean_similarity']:.4f}"]


def _marked(row: Mapping[str, Any]) -> list[str]:
    return [str(row["marked"])] if "marked" in row else []


def _tests(tests: Mapping[str, Any] | None) -> str:
    if tests is None or tests["resolved"] is None:
        return "-" if tests is None else "not run"
    if tests["resolved"]:
        return "resolved"
    passed = tests["fail_to_pass"] + tests["pass_to_pass"]
    return _of(passed, tests["fail_to_pass_of"] + tests["pass_to_pass_of"])


def _of(count: int, total: int) -> str:
    return f"{count}/{total}" if total else "-"
