"""All the recorded runs: everything is read, or reported with its reason; the counts are those of the data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swe_srl.scaffolds.mini_swe_agent import MiniSweAgent
from swe_srl.trajectories.chat import split_observation, to_messages
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
    assert (report.read, report.kept, report.filtered, report.bad, report.steps) == (358, 356, 0, 2, 12_470)
    assert report.formats == {
        "mini-swe-agent-1": FormatCount(279, 10_468, 338),
        "mini-swe-agent-2": FormatCount(15, 1252),
        "nemo-gym-pivot": FormatCount(5, 5),
        "openai-responses": FormatCount(35, 334),
        "openhands": FormatCount(3, 105),
        "swe-agent": FormatCount(16, 203),
        "swe-smith": FormatCount(3, 103),
    }
    assert load([tmp_path / "all.jsonl"]) == trajectories


def test_what_is_not_read_says_why(results: list[Found | Skipped]) -> None:
    skipped = [result for result in results if isinstance(result, Skipped)]
    assert Counter(result.reason.split(":")[0] for result in skipped) == {
        "SWE-bench predictions (patches without steps)": 1,
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


def called(message: dict[str, Any]) -> dict[str, Any]:
    """What the model and the tools said to each other in a message."""
    calls = [{key: call[key] for key in ("id", "type", "function")} for call in message.get("tool_calls") or []]
    said = {"role": message["role"], "content": message["content"], **({"tool_calls": calls} if calls else {})}
    return said | ({"tool_call_id": message["tool_call_id"]} if "tool_call_id" in message else {})


def test_mini_swe_agent_2_messages_come_back_byte_for_byte(trajectories: list[Trajectory], real_data: Path) -> None:
    runs = [trajectory for trajectory in trajectories if trajectory.format == "mini-swe-agent-2"]
    assert len(runs) == 15
    for run in runs:
        source = json.loads((real_data / "trajectories" / "mini_swe_agent_v2" / f"{run.id}.traj.json").read_text())
        assert to_messages(run.turns)[:-1] == [called(message) for message in source["messages"][:-1]]
        observed = [message["extra"]["raw_output"] for message in source["messages"] if message["role"] == "tool"]
        seen = [step.turn.observation for step in run.steps() if step.turn.observation][:-1]
        for observation, whole in zip(seen, observed, strict=True):
            elided = observation.extra.get("elided_chars")
            shown = whole if elided is None else f"{whole[:5000]}\n[{len(whole) - 10_000} characters elided]\n{whole[-5000:]}"
            assert observation.output == shown
            assert elided is None or observation.extra["extra"]["raw_output"] == whole
        assert run.submission == list(run.steps())[-1].turn.observation.text  # type: ignore[union-attr]


def test_swe_smith_messages_come_back_byte_for_byte(trajectories: list[Trajectory], real_data: Path) -> None:
    runs = [trajectory for trajectory in trajectories if trajectory.format == "swe-smith"]
    rows = [json.loads(line) for line in (real_data / "trajectories/swe_smith_xml/ft_xml_example.jsonl").open()]
    assert [to_messages(run.turns) for run in runs] == [list(map(called, row["messages"])) for row in rows]
    assert {run.scaffold for run in runs} == {"swe-agent-review"}
    assert not any(turn.action and turn.action.error for run in runs for turn in run.turns)
    ranges = [call.arguments["view_range"] for run in runs for step in run.steps() for call in step.action.calls
              if "view_range" in call.arguments]  # fmt: skip
    assert len(ranges) == 24
    assert all(isinstance(part, int) for value in ranges for part in value)


def test_openhands_runs(trajectories: list[Trajectory], real_data: Path) -> None:
    runs = [trajectory for trajectory in trajectories if trajectory.format == "openhands"]
    assert [sum(1 for _ in run.steps()) for run in runs] == [23, 33, 49]
    assert Counter(step.action.call.name for run in runs for step in run.steps()) == {
        "execute_bash": 49, "str_replace_editor": 52, "think": 2, "finish": 2,
    }  # fmt: skip
    rows = [json.loads(line) for line in (real_data / "trajectories/openhands/multi_swe_bench__output.jsonl").open()]
    for run, row in zip(runs, rows, strict=True):
        contents = [
            event["content"] for event in row["history"] if event.get("observation") in ("run", "read", "edit", "think")
        ]
        assert [step.turn.observation.output for step in run.steps() if step.turn.observation] == contents
        events = [event["id"] for event in row["history"]]
        kept = [event["event"]["id"] for event in run.extra["events"]]
        for turn in run.turns:
            kept += [event["id"] for event in turn.extra.get("events", [turn.extra.get("event")])]
            kept += [turn.observation.extra["event"]["id"]] if turn.observation else []
        assert sorted(kept) == events


def test_responses_items_are_all_kept(trajectories: list[Trajectory], real_data: Path) -> None:
    runs = {trajectory.id: trajectory for trajectory in trajectories if trajectory.format == "openai-responses"}
    for path in sorted((real_data / "trajectories" / "nemo_gym").glob("*rollouts*.jsonl")):
        for number, line in enumerate(path.open(), 1):
            run, items = runs[f"{path.stem}-{number}"], json.loads(line)["response"]["output"]
            made = [item for item in items if item["type"] == "function_call"]
            calls = [call for turn in run.turns if turn.action for call in turn.action.calls]
            assert [(call.name, call.id) for call in calls] == [(item["name"], item["call_id"]) for item in made]
            parts = [part for turn in run.turns if turn.observation
                     for part in split_observation(turn.observation, [call.id for call in turn.action.calls])]  # type: ignore[union-attr]  # fmt: skip
            outputs = [item for item in items if item["type"] == "function_call_output"]
            assert parts == [{"content": item["output"], "tool_call_id": item["call_id"]} for item in outputs]
            texts = ["".join(part["text"] for part in item["content"]) for item in items if item["type"] == "message"]
            assert [turn.text for turn in run.turns if turn.role == "agent" and turn.text] == [text for text in texts if text]


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
