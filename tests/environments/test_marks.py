"""A step is vouched for where every step before it met the requirement; a mark belongs to content, not to a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from swe_srl.environments.fidelity import TrajectoryReplay, compare
from swe_srl.environments.marks import FILE, Mark, Marks, Requirement, content_digest, mark, parse_requirement, write_marks
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import Found, import_trajectories, load
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.sources import iter_sources
from swe_srl.trajectories.storage import write_jsonl

EXACT, RETURN_CODE = Requirement("exact"), Requirement("returncode")


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("exact", EXACT),
        ("returncode", RETURN_CODE),
        ("similarity>=0.9", Requirement("similarity", 0.9)),
        ("similarity≥1", Requirement("similarity", 1.0)),
        ("similarity>=.5", Requirement("similarity", 0.5)),
    ],
)
def test_a_requirement_is_read_and_written(text: str, requirement: Requirement) -> None:
    assert parse_requirement(text) == requirement
    assert parse_requirement(str(requirement)) == requirement


@pytest.mark.parametrize("text", ["", "Exact", "similarity", "similarity>0.9", "similarity>=2", "similarity>=x", "similarity>=."])
def test_another_requirement_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--require .*: expected exact, returncode, or similarity>=X with X from 0 to 1"):
        parse_requirement(text)


def _replayed(*outcomes: tuple[str, int | None, int], ks: Sequence[int] = range(9), error: str | None = None) -> TrajectoryReplay:
    """Steps recorded as "aaaa", each with what it printed now, the recorded code and the code now."""
    steps = [
        compare(k, Observation("", "aaaa", was), Observation("", text, now), 0.1)
        for k, (text, was, now) in zip(ks, outcomes, strict=False)
    ]
    return TrajectoryReplay("r", "t", tuple(steps), 1.0, None, error)


SAME = ("aaaa", 0, 0)


@pytest.mark.parametrize(
    ("replay", "requirement", "first"),
    [
        (_replayed(SAME, SAME), EXACT, None),
        (_replayed(SAME, ("aaab", 0, 0), SAME, SAME), EXACT, 2),
        (_replayed(SAME, ("aaab", 0, 0), SAME, SAME), RETURN_CODE, None),
        (_replayed(SAME, ("aaaa", 0, 1), SAME, SAME), EXACT, None),
        (_replayed(SAME, ("aaaa", 0, 1), SAME, SAME), RETURN_CODE, 2),
        (_replayed(SAME, ("aaaa", None, 1), SAME), RETURN_CODE, None),
        (_replayed(("aaab", 0, 0), ("aabb", 0, 0), SAME), Requirement("similarity", 0.75), 2),
        (_replayed(("aaab", 0, 0), ("aabb", 0, 0), SAME), Requirement("similarity", 0.5), None),
        (_replayed(("aaaa ", 0, 0)), Requirement("similarity", 1.0), None),
        # Steps 1 and 2 have no recorded observation: nothing speaks against them.
        (_replayed(SAME, ("b", 0, 0), SAME, ks=[0, 3, 4]), EXACT, 4),
        (_replayed(SAME, SAME, error="gone"), EXACT, 2),
        (_replayed(error="gone"), EXACT, 0),
        (_replayed(("b", 0, 0), SAME, error="gone"), EXACT, 1),
    ],
)
def test_marked_from_the_step_after_the_first_that_fails(
    replay: TrajectoryReplay, requirement: Requirement, first: int | None
) -> None:
    assert mark(replay, requirement).first == first


def _trajectory(name: str, *commands: str) -> Trajectory:
    turns = [
        Turn("agent", "written", "thought", Action((ToolCall("bash", {"command": command}, "id"),)), Observation("o", "o", 0))
        for command in commands
    ]
    return Trajectory(name, "task", "swe-agent", "test", tuple(turns), environment={"A": "1"}, timeout_seconds=5.0)


def test_marks_are_found_by_content(tmp_path: Path) -> None:
    good, bad, unknown = _trajectory("good", "ls", "pwd"), _trajectory("bad", "ls", "pwd", "id"), _trajectory("unknown", "ls")
    write_marks(tmp_path, [(good, Mark(None)), (bad, Mark(1, "after it"))])
    marks = Marks(tmp_path)
    assert [marks.against(step) for run in (bad, good, bad, unknown) for step in run.steps()] == [
        *(None, "after it", "after it"),
        *(None, None),
        *(None, "after it", "after it"),
        "the trajectory was not replayed",
    ]
    changed = _trajectory("good", "ls", "pwd -P")
    assert {marks.against(step) for step in changed.steps()} == {"the trajectory was not replayed"}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"task_id": "other"},
        {"scaffold": "mini-swe-agent"},
        {"environment": {"A": "2"}},
        {"timeout_seconds": 6.0},
        {"workdir": "/x"},
        {"submission": "diff"},
    ],
)
def test_whatever_decides_a_replay_is_part_of_the_content(change: dict[str, object]) -> None:
    run = _trajectory("a", "ls")
    assert content_digest(dataclasses.replace(run, **change)) != content_digest(run)  # type: ignore[arg-type]


@pytest.mark.parametrize("observation", [Observation("o", "p", 0), Observation("o", "o", 1), Observation("o", "o"), None])
def test_what_was_seen_is_part_of_the_content(observation: Observation | None) -> None:
    run = _trajectory("a", "ls")
    other = dataclasses.replace(run, turns=(dataclasses.replace(run.turns[0], observation=observation),))
    assert content_digest(other) != content_digest(run)


def test_thoughts_and_outcome_are_not_part_of_it() -> None:
    run = _trajectory("a", "ls")
    other = dataclasses.replace(run.turns[0], thought="other", text="other")
    again = dataclasses.replace(run, turns=(other,), resolved=True, model="m", format="atif", extra={"x": 1})
    assert content_digest(again) == content_digest(run)


def test_importing_does_not_change_the_content(tmp_path: Path, real_data: Path) -> None:
    read = import_trajectories(iter_sources([real_data / "trajectories" / name for name in ("mini_swe_agent_v2", "swe_agent")]))
    found = [result.trajectory for result in read if isinstance(result, Found)]
    assert len(found) >= 15
    write_jsonl(tmp_path / "all.jsonl", found)
    assert [content_digest(run) for run in load([tmp_path / "all.jsonl"])] == [content_digest(run) for run in found]


def test_a_folder_without_marks_and_one_with_a_broken_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no marks; make them with `swe-srl replay … --out .* --require exact`"):
        Marks(tmp_path)
    write_marks(tmp_path, [(_trajectory("a", "ls"), Mark(None))])
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps({"content": "x", "first": "y", "reason": ""}) + "\n")
    with pytest.raises(UserError, match=r"marks.jsonl:2: not a line of marks: "):
        Marks(tmp_path)
