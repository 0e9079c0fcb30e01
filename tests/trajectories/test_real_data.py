"""All the recorded runs: everything is read, or reported with its reason; the counts are those of the data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from swe_srl.scaffolds.mini_swe_agent import MiniSweAgent
from swe_srl.trajectories.documents import Skipped
from swe_srl.trajectories.importing import FormatCount, Found, import_trajectories, load, run_import
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.sources import iter_sources

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def results(real_data: Path) -> list[Found | Skipped]:
    return list(import_trajectories(iter_sources([real_data / "trajectories"])))


@pytest.fixture(scope="module")
def trajectories(results: list[Found | Skipped]) -> list[Trajectory]:
    return [result.trajectory for result in results if isinstance(result, Found)]


def test_import_of_everything(real_data: Path, trajectories: list[Trajectory], tmp_path: Path) -> None:
    report = run_import([real_data / "trajectories"], tmp_path / "all.jsonl")
    assert (report.read, report.kept, report.filtered, report.bad, report.steps) == (322, 295, 0, 27, 10_671)
    assert report.formats == {"mini-swe-agent-1": FormatCount(279, 10_468), "swe-agent": FormatCount(16, 203)}
    assert load([tmp_path / "all.jsonl"]) == trajectories


def test_what_is_not_read_says_why(results: list[Found | Skipped]) -> None:
    skipped = [result for result in results if isinstance(result, Skipped)]
    assert Counter(result.reason.split(":")[0] for result in skipped) == {
        "mini-swe-agent-1.1": 15,
        "NeMo Gym rollout (OpenAI Responses items)": 7,
        "NeMo Gym PivotRL row": 1,
        "OpenHands event history": 1,
        "SWE-bench predictions (patches without steps)": 1,
        "SWE-smith messages": 1,
        "unknown format; top-level keys": 1,
    }
    assert all(result.line is None for result in skipped)


def test_mini_swe_agent_runs(trajectories: list[Trajectory]) -> None:
    runs = [trajectory for trajectory in trajectories if trajectory.format == "mini-swe-agent-1"]
    turns = [turn for run in runs for turn in run.turns if turn.role == "agent"]
    assert len(turns) == 10_806
    assert Counter(turn.action.error.split()[0] for turn in turns if turn.action and turn.action.error) == {"found": 338}
    assert sum(turn.is_step for turn in turns) == 10_468
    assert all(turn.observation for turn in turns)
    assert sum(bool(turn.observation and turn.observation.extra.get("timed_out")) for turn in turns) == 7
    assert {run.turns[-1].observation.extra["submitted"] for run in runs if run.turns[-1].observation} == {True}
    assert {run.timeout_seconds for run in runs} == {60.0}
    assert {tuple(run.environment.items()) for run in runs} == {tuple(MiniSweAgent.environment.items())}
    scaffold = MiniSweAgent()
    submits = [(step.k, scaffold.is_submit(step.action.call)) for run in runs for step in run.steps()]
    assert sum(submit for _, submit in submits) == 279
    assert all(scaffold.is_submit(list(run.steps())[-1].action.call) for run in runs)


def test_swe_agent_runs(trajectories: list[Trajectory], real_data: Path) -> None:
    runs = [trajectory for trajectory in trajectories if trajectory.format == "swe-agent"]
    assert sorted(sum(1 for _ in run.steps()) for run in runs) == [5, 5, 5, 5, 11, 11, 11, 11, 12, 12, 12, 13, 14, 17, 22, 37]
    assert {step.action.call.name for run in runs for step in run.steps()} == {
        "bash", "create", "edit", "find_file", "insert", "open", "str_replace_editor", "submit",
    }  # fmt: skip
    assert Counter(run.scaffold for run in runs) == {
        "swe-agent-cursors": 2,
        "swe-agent-review": 3,
        "swe-agent-windowed": 1,
        "swe-agent-windowed-0": 6,
        "swe-agent-windowed-replace": 1,
        "swe-agent-windowed-replace-2024": 3,
    }
    for run in runs:
        steps = json.loads((real_data / "trajectories" / "swe_agent" / f"{run.id}.traj").read_text()).get("trajectory", [])
        assert "unaligned_steps" not in run.extra
        if steps:
            observed = [step.turn.observation.output for step in run.steps() if step.turn.observation]
            assert observed == [step["observation"] for step in steps]
            timed = not run.scaffold.endswith(("-0", "-cursors"))  # version 0 measured no times
            assert all(("execution_time" in step.turn.extra) == timed for step in run.steps())
