"""The changes that make the tasks' environments the recorded ones fit the tasks; the table says what was measured."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fidelity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fidelity", FOLDER / "fidelity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROW = {"instance_id": "a", "source": {"sdist": "a==1"}, "prepare": ["p1", "p2"], "setup": ["s1", "last"]}
PLAIN = {
    "file": "swe_agent/demo__replay__lib-1.traj",
    "steps": 3,
    "exact": 2,
    "exact_sorted": 2,
    "return_codes_matched": None,
    "mean_similarity": 0.9,
    "seconds": 1.0,
    "final_patch_equal": True,
}
OURS = {
    "steps": 4,
    "exact": 3,
    "exact_raw": 1,
    "exact_unordered": 4,
    "return_codes_matched": 2,
    "return_codes_compared": 3,
    "mean_similarity": 0.95,
    "mean_similarity_raw": 0.7,
    "submission_equal": True,
    "seconds": 2.0,
    "error": None,
}


def test_a_change_replaces_commands_and_adds_its_own_before_the_last(fidelity: ModuleType) -> None:
    change = {"tasks": ["a"], "sdist": "a==2", "replace": {"p2": "P2"}, "prepare": ["p3"], "setup": ["s2"]}
    changed = fidelity.changed(ROW, [change, {"tasks": ["b"], "setup": ["other"]}])
    assert changed == {
        "instance_id": "a",
        "source": {"sdist": "a==2"},
        "prepare": ["p1", "P2", "p3"],
        "setup": ["s1", "s2", "last"],
    }


def test_a_change_of_a_command_that_is_not_there_is_refused(fidelity: ModuleType) -> None:
    with pytest.raises(ValueError, match="a has no command 'p9'"):
        fidelity.changed(ROW, [{"tasks": ["a"], "replace": {"p9": "x"}}])


def test_the_table_has_a_row_a_trajectory_and_the_sums(fidelity: ModuleType) -> None:
    rows = [fidelity.compared(PLAIN, OURS, "a clock"), fidelity.compared({**PLAIN, "file": "x/b.traj.json"}, None, "")]
    lines = fidelity.table(rows).splitlines()
    assert lines[2:] == [
        "| lib-1 | 4 | 3 | 2/3 | 4 | 2 | 2/3 | - | 0.9500 | 0.9000 | a clock |",
        "| b | not replayed | | | | | | | | | |",
        "| all | 4 | 3 | 2/3 | 4 | 2 | | | | | |",
    ]


@pytest.mark.real_data
def test_every_change_fits_the_real_tasks_and_every_run_says_what_remains(fidelity: ModuleType, real_data: Path) -> None:
    recipes = tomllib.loads((FOLDER / "fidelity.toml").read_text(encoding="utf-8"))
    tasks: list[dict[str, Any]] = [json.loads(line) for line in (real_data / "tasks.jsonl").read_text().splitlines()]
    named = {task for change in recipes["change"] for task in change["tasks"]}
    assert named <= {task["instance_id"] for task in tasks}
    for task in tasks:
        assert fidelity.changed(task, recipes["change"])["instance_id"] == task["instance_id"]
    runs = {fidelity.name(run["file"]) for task in tasks for run in task["trajectories"]}
    assert len(runs) == 19
    assert set(recipes["remains"]) == runs
