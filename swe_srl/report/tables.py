"""Evaluations side by side: the rows that the HTML report and the terminal share, and the terminal's table.

Invariant: the change is last minus first; a value that an evaluation does not have is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from swe_srl.report.run_data import EVALUATED

if TYPE_CHECKING:
    from swe_srl.rollouts.steps import StepEvaluation


@dataclass(frozen=True, slots=True)
class Cell:
    """One aggregate of one evaluation, with its interval where it has one."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One aggregate over all evaluations."""

    label: str
    cells: list[Cell]
    change: float | None


def comparison_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of the comparison; none without evaluations.

    Args:
        evaluations: evaluations as written (`StepEvaluation.to_json`), by name, in the order made.
    """
    if not evaluations:
        return []
    rows = []
    for name, label in EVALUATED.items():
        cells = [_cell(evaluation, name) for evaluation in evaluations.values()]
        first, last = cells[0].value, cells[-1].value
        rows.append(Row(label, cells, None if first is None or last is None else last - first))
    return rows


def comparison_table(evaluations: Mapping[str, Mapping[str, Any]]) -> Table:
    """The evaluations of a run side by side for the terminal, with 95% bootstrap intervals in brackets."""
    if not evaluations:
        return Table(title="nothing was evaluated", title_justify="left")
    steps = next(iter(evaluations.values()))["n"]
    table = Table(title=f"{steps} held-out steps, greedy answers")
    table.add_column("", no_wrap=True)
    for name in evaluations:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("change", justify="right")
    for row in comparison_rows(evaluations):
        table.add_row(row.label, *(_text(cell) for cell in row.cells), _change(row.change))
    return table


def before_after_table(before: StepEvaluation | None, after: StepEvaluation | None) -> Table:
    """The table of a run's first and last evaluation; one that was not made is left out."""
    made = {"before": before, "after": after}
    return comparison_table({name: evaluation.to_json() for name, evaluation in made.items() if evaluation is not None})


def _cell(evaluation: Mapping[str, Any], name: str) -> Cell:
    estimate = evaluation.get(name)
    return Cell(estimate["value"], estimate["low"], estimate["high"]) if estimate else Cell(None, None, None)


def _change(change: float | None) -> Text:
    if change is None:
        return Text("–")
    return Text(f"{change:+.3f}", "green" if change > 0 else "red" if change < 0 else "")


def _text(cell: Cell) -> Text:
    if cell.value is None:
        return Text("–")
    text = Text(f"{cell.value:.3f}")
    if cell.low is not None and cell.high is not None:
        text.append(f" [{cell.low:.2f}, {cell.high:.2f}]", "dim")
    return text
