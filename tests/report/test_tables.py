from typing import Any

from rich.console import Console

from swe_srl.report.tables import before_after_table, comparison_rows, comparison_table


def evaluation(validity: float, similarity: float | None) -> dict[str, Any]:
    def estimate(value: float | None) -> dict[str, float] | None:
        return None if value is None else {"value": value, "low": value - 0.1, "high": value + 0.1}

    return {"n": 24, "format_validity": estimate(validity), "mean_similarity_valid": estimate(similarity)}


BEFORE, AFTER = evaluation(0.25, None), evaluation(0.75, 0.5)


def test_the_change_is_last_minus_first_and_nothing_is_not_zero() -> None:
    rows = {row.label: row for row in comparison_rows({"before": BEFORE, "middle": AFTER, "after": evaluation(0.5, 0.5)})}
    assert [cell.value for cell in rows["valid format"].cells] == [0.25, 0.75, 0.5]
    assert rows["valid format"].change == 0.25
    assert rows["similarity, valid"].change is None
    assert rows["same tool"].cells[0].value is None
    assert comparison_rows({}) == []


def test_the_terminal_shows_intervals() -> None:
    console = Console(width=80, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison_table({"before": BEFORE, "after": AFTER}))
    text = console.export_text()
    assert "24 held-out steps" in text
    line = next(line for line in text.splitlines() if "valid format" in line)
    assert "0.250 [0.15, 0.35]" in line
    assert "0.750 [0.65, 0.85]" in line
    assert "+0.500" in line


def test_without_evaluations_the_table_says_so() -> None:
    assert before_after_table(None, None).title == "nothing was evaluated"
