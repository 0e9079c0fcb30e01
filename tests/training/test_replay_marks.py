"""From a real replay to the steps that are trained on: what diverged, or was never replayed, is left out and counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from docker import DockerClient
from transformers import PreTrainedTokenizerFast

from swe_srl.config import DataSection, ModelSection, Recipe, SftStage
from swe_srl.environments.marks import parse_requirement
from swe_srl.environments.run import ReplayOptions, replay_command
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.training.data import load_dataset
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.storage import write_jsonl


def _run(name: str, task: str, *commands: tuple[str, str]) -> Trajectory:
    turns = [Turn("user", "Fix it.")]
    for command, output in commands:
        call = ToolCall("bash", {"command": command}, "call_0")
        turns.append(Turn("agent", "", "See.", Action((call,)), Observation(f"OBSERVATION:\n{output}", output, 0)))
    return Trajectory(name, task, "swe-agent", "atif", tuple(turns), resolved=True)


def _recipe(train: Path, replay: Path | None, **options: object) -> Recipe:
    data = {"train": [str(train)], "replay": str(replay) if replay else None, **options}
    stage = SftStage(objective="sft", updates=1, lr=1.0)
    return Recipe(model=ModelSection(name="m"), data=DataSection.model_validate(data), stages=[stage])


@pytest.fixture
def runs(tmp_path: Path, base_image: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs of two tasks; one diverges at its step 1, one's task cannot be built."""
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text("")
    rows = [{"id": name, "source": {"path": "repo"}} for name in ("tiny", "held")]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    faithful = _run("faithful", "tiny", ("echo 1", "1"), ("echo 2", "2"))
    diverging = _run("diverging", "tiny", ("echo 1", "1"), ("echo 2", "other"), ("echo 3", "3"), ("echo 4", "4"))
    stray = _run("stray", "no-task", ("echo 1", "1"), ("echo 2", "2"))
    held = _run("held", "held", ("echo 1", "other"), ("echo 2", "2"))
    write_jsonl(tmp_path / "runs.jsonl", [faithful, diverging, stray, held])
    return tmp_path / "runs.jsonl"


def test_marked_steps_are_not_trained_on(
    client: DockerClient, runs: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    options = ReplayOptions(require=parse_requirement("exact"))
    report = replay_command([str(runs)], [tmp_path / "tasks.jsonl"], tmp_path / "replay", None, print, options)
    assert [failure["id"] for failure in report.failed] == ["stray"]
    assert report.marked == {"diverging": 2, "faithful": 0, "held": 1}

    dataset = load_dataset(_recipe(runs, tmp_path / "replay", hold_out_tasks=["held"]), tokenizer)
    assert [item.step.id for item in dataset.train] == ["faithful@0", "faithful@1", "diverging@0", "diverging@1"]
    assert [step.id for step in dataset.validation] == ["held@0", "held@1"], "what is held out stays whole"
    assert dataset.summary()["left_out"] == {
        "replay: after a step whose replay is not exact": 2,
        "replay: the trajectory was not replayed": 2,
    }
    without = load_dataset(_recipe(runs, None, hold_out_tasks=["held"]), tokenizer)
    assert (len(without.train), without.dropped.total()) == (8, 0)


def test_nothing_vouched_for_and_no_marks(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    write_jsonl(tmp_path / "runs.jsonl", [_run("a", "t", ("echo 1", "1"))])
    recipe = _recipe(tmp_path / "runs.jsonl", tmp_path)
    with pytest.raises(UserError, match="holds no marks; make them with `swe-srl replay"):
        load_dataset(recipe, tokenizer)
    (tmp_path / "marks.jsonl").write_text("")
    with pytest.raises(UserError, match="no training steps left of 1; left out: 1 because replay: the tra"):
        load_dataset(recipe, tokenizer)
