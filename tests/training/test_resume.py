"""A run that is killed and continued writes what it would have written otherwise."""

import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from hand_made import trajectory
from rich.console import Console
from safetensors.torch import load_file
from tiny_runs import RECIPE, learn_the_format, until, updates

from swe_srl.errors import UserError
from swe_srl.policy.base import SamplerLost, SamplingOptions
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.recipes import load_recipe
from swe_srl.training import trainer
from swe_srl.training.folder import RunFolder
from swe_srl.training.trainer import train

SFT = """
[sampling]
max_tokens = 4
[evaluation]
every = 1
best = "mean_reward"
[checkpoints]
every = 1
[[stages]]
objective = "sft"
updates = 3
steps_per_update = 2
lr = 1e-3
"""
SRL = """
[sampling]
samples = 4
max_tokens = 110
[evaluation]
every = 2
best = "mean_reward"
[checkpoints]
every = 2
[[stages]]
objective = "sft"
updates = 3
steps_per_update = 2
lr = 1e-3
[[stages]]
objective = "srl"
updates = 4
steps_per_update = 2
lr = 1e-3
max_refills = 1
from_best = true
kl_coefficient = 0.1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories, and a tiny policy that has learnt to answer in the right format most of the time."""
    folder = tmp_path_factory.mktemp("resume")
    runs = [trajectory("a", "lib-1", ["ls", "ls", "ls"]), trajectory("b", "lib-2", ["ls"]), trajectory("c", "held-1", ["ls"])]
    learn_the_format(folder, runs)
    (folder / "sft.toml").write_text((RECIPE + SFT).format(folder=folder))
    (folder / "srl.toml").write_text((RECIPE + SRL).format(folder=folder))
    return folder


def everything(run: Path) -> dict[str, Any]:
    """All that a run wrote, times, memory and paths apart."""
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in metrics:
        del line["seconds"], line["peak_memory_mb"]
    written = {path.name: path.read_bytes() for path in run.glob("*.json*") if path.name not in ("metrics.jsonl", "run.json")}
    weights = {path.parent.name: load_file(path) for path in run.glob("checkpoint*/*.safetensors")}
    return {
        **written,
        "metrics": metrics,
        "weights": {
            f"{name}/{key}": tensor.numpy().tobytes() for name, part in weights.items() for key, tensor in part.items()
        },
        "left": sorted(path.name for path in run.iterdir()),
        "status": json.loads((run / "run.json").read_text())["status"],
    }


def whole(folder: Path, name: str = "sft") -> dict[str, Any]:
    """What a run of a recipe writes that nobody interrupts."""
    if not (folder / f"{name}-whole").exists():
        train(load_recipe(folder / f"{name}.toml"), folder / f"{name}-whole", console=Console(quiet=True))
    return everything(folder / f"{name}-whole")


def stop_in(update: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the signal come in the middle of an update."""
    step, calls = torch.optim.AdamW.step, itertools.count(1)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == update:
            signal.raise_signal(number)
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)


def finish(recipe: Path, out: Path, **options: Any) -> None:
    process = killing.start(recipe, out, **options)
    process.join(120)
    assert process.exitcode == 0


def test_killed_before_any_change_of_a_file(folder: Path, tmp_path: Path) -> None:
    finish(folder / "sft.toml", tmp_path / "whole", count=tmp_path / "count")
    expected = everything(tmp_path / "whole")
    assert len(expected["metrics"]) == 3
    assert expected["status"] == "finished"
    assert {"checkpoint", "checkpoint-best", "evaluation-stage-1-sft-update-2.json"} <= set(expected["left"])
    assert not any("checkpoints" in name or "partial" in name or "old" in name for name in expected["left"])
    events = int((tmp_path / "count").read_text())
    assert events > 150
    chance = random.Random(0)
    for kill in sorted(chance.sample(range(events), 8)):
        out = tmp_path / f"killed-{kill}"
        process = killing.start(folder / "sft.toml", out, kill_before=kill)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        finish(folder / "sft.toml", out)
        assert everything(out) == expected, f"killed before file event {kill} of {events}"


def test_killed_at_random_moments_again_and_again(folder: Path, tmp_path: Path) -> None:
    finish(folder / "srl.toml", tmp_path / "whole")
    expected = everything(tmp_path / "whole")
    srl = [line for line in expected["metrics"] if line["objective"] == "srl"]
    assert sum(not line["skipped"] for line in srl) >= 2, "otherwise there is nothing to be lost"
    out, chance, kills = tmp_path / "killed", random.Random(1), 0
    for _ in range(4):
        process = killing.start(folder / "srl.toml", out)
        await_a_new_line(out / "metrics.jsonl", process)
        process.join(chance.uniform(0, 0.7))
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    finish(folder / "srl.toml", out)
    assert kills >= 2
    assert everything(out) == expected


def await_a_new_line(path: Path, process: Any) -> None:
    """Return when the file has grown; what a continued run cuts off of it first does not count."""
    lowest = size = path.stat().st_size if path.exists() else 0
    while size <= lowest and process.exitcode is None:
        time.sleep(0.01)
        size = path.stat().st_size if path.exists() else 0
        lowest = min(lowest, size)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("every", [0, 1])
def test_a_stopped_run_says_how_to_continue_and_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, every: int
) -> None:
    recipe, out = load_recipe(folder / "sft.toml", [f"checkpoints.every={every}"]), tmp_path / "a run"
    console = Console(record=True, width=300, file=(tmp_path / "log").open("w"))
    with monkeypatch.context() as patched:
        stop_in(2, number, patched)
        summary = train(recipe, out, console=console)
    assert (summary.updates, summary.stopped_by, summary.after) == (2, number, None)
    said = f"{number.name}: stopped after 2 update(s), all kept; to continue: swe-srl train --resume '{out}'"
    assert said in console.export_text()
    status = json.loads((out / "run.json").read_text())
    assert (status["status"], status["to_continue"]) == ("interrupted", f"swe-srl train --resume '{out}'")
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["000002"]
    assert (out / "checkpoint").exists() == (number == signal.SIGINT)
    with pytest.raises(UserError, match="holds an unfinished run; continue it with `swe-srl train --resume"):
        train(recipe, out)
    summary = train(recipe, out, resume=True, console=Console(quiet=True))
    assert (summary.updates, summary.interrupted) == (3, False)
    assert everything(out) == whole(folder)


@pytest.mark.parametrize(
    "overrides",
    [
        ['model.dtype="bfloat16"', "model.gradient_checkpointing=true"],
        ['stages.0.engine="separate"', 'stages.0.schedule="cosine"', "stages.0.warmup=0.5", "stages.0.weight_decay=0.1"],
    ],
    ids=["bfloat16", "schedule"],
)
def test_it_does_so_whatever_the_recipe_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str]
) -> None:
    recipe = load_recipe(folder / "sft.toml", overrides)
    train(recipe, tmp_path / "whole", console=Console(quiet=True))
    with monkeypatch.context() as patched:
        stop_in(2, signal.SIGTERM, patched)
        train(recipe, tmp_path / "stopped", console=Console(quiet=True))
    train(recipe, tmp_path / "stopped", resume=True, console=Console(quiet=True))
    assert everything(tmp_path / "stopped") == everything(tmp_path / "whole")


def test_sigterm_ends_the_command_with_status_0(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "swe_srl.cli", "train"]
    options = ["--out", str(tmp_path / "run"), "--set", "stages.0.updates=1000", "--set", "evaluation.every=1000"]
    process = subprocess.Popen([*command, str(folder / "sft.toml"), *options], stderr=subprocess.PIPE, text=True)
    until(lambda: updates(tmp_path / "run") >= 3, process)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "SIGTERM: stopping after this update" in said
    assert "swe-srl train --resume" in said
    saved = json.loads(next(tmp_path.glob("run/checkpoints/*/progress.json")).read_text())
    assert saved["updates"] == updates(tmp_path / "run") >= 3


def test_a_signal_during_an_evaluation_loses_only_the_evaluation(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, real, calls = load_recipe(folder / "sft.toml"), trainer.evaluate_steps, itertools.count()

    def evaluate_steps(*args: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "evaluate_steps", evaluate_steps)
        train(recipe, tmp_path / "run", console=Console(quiet=True))
    names = {path.name for path in (tmp_path / "run").glob("evaluation-*.json")}
    assert names == {"evaluation-before.json", "evaluation-stage-1-sft-update-1.json"}
    train(recipe, tmp_path / "run", resume=True, console=Console(quiet=True))
    assert everything(tmp_path / "run") == whole(folder)


def test_an_engine_lost_while_it_samples_costs_no_update(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, sample, draws = load_recipe(folder / "srl.toml"), TransformersSampler.sample, itertools.count(1)

    def lost(self: Any, prompts: Any, options: SamplingOptions) -> Any:
        if options.temperature and next(draws) == 3:
            raise SamplerLost("the engine has ended")
        return sample(self, prompts, options)

    with monkeypatch.context() as patched:
        patched.setattr(TransformersSampler, "sample", lost)
        with pytest.raises(UserError, match=r"^the engine has ended\n\d update\(s\) are kept; .*swe-srl train --resume"):
            train(recipe, tmp_path / "run", console=Console(quiet=True))
    kept = updates(tmp_path / "run")
    assert kept > 3, "otherwise it was not lost within the srl stage"
    saved = json.loads((tmp_path / "run" / "checkpoints" / f"{kept:06d}" / "progress.json").read_text())
    assert (saved["updates"], saved["stage"]) == (kept, 1)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "unfinished"
    train(recipe, tmp_path / "run", resume=True, console=Console(quiet=True))
    assert everything(tmp_path / "run") == whole(folder, "srl")


@pytest.fixture
def stopped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that a signal stopped in its second update."""
    with monkeypatch.context() as patched:
        stop_in(2, signal.SIGTERM, patched)
        train(load_recipe(folder / "sft.toml"), tmp_path / "stopped", console=Console(quiet=True))
    return tmp_path / "stopped"


def test_another_recipe_cannot_continue_a_run(folder: Path, stopped: Path) -> None:
    recipe = load_recipe(folder / "sft.toml", ["seed=6", "stages.0.lr=2e-3", "evaluation.patience=3", "checkpoints.keep=3"])
    changes = "evaluation.patience was None, is 3; seed was 5, is 6; stages.0.lr was 0.001, is 0.002"
    with pytest.raises(UserError, match=re.escape(f"cannot be continued by another recipe: {changes}") + "$"):
        train(recipe, stopped, resume=True, console=Console(quiet=True))


def test_other_data_cannot_continue_a_run(folder: Path, stopped: Path) -> None:
    before = (folder / "runs.jsonl").read_bytes()
    try:
        (folder / "runs.jsonl").write_bytes(before.replace(b"Fix it.", b"Mend it"))
        with pytest.raises(UserError, match=r"the data have changed since it began \(data.json: fingerprint\)"):
            train(load_recipe(folder / "sft.toml"), stopped, resume=True, console=Console(quiet=True))
    finally:
        (folder / "runs.jsonl").write_bytes(before)


def test_other_versions_are_warned_of(folder: Path, stopped: Path, tmp_path: Path) -> None:
    written = json.loads((stopped / "versions.json").read_text())
    written["packages"]["torch"] = "2.0"
    (stopped / "versions.json").write_text(json.dumps(written))
    console = Console(record=True, width=300, file=(tmp_path / "log").open("w"))
    train(load_recipe(folder / "sft.toml"), stopped, resume=True, console=console)
    assert f"warning: torch 2.0 → {torch.__version__} since the run began" in console.export_text()


def test_lines_lost_from_the_metrics_are_missed(folder: Path, stopped: Path) -> None:
    (stopped / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"metrics\.jsonl: has lost lines that the last checkpoint counts"):
        train(load_recipe(folder / "sft.toml"), stopped, resume=True, console=Console(quiet=True))


def test_a_finished_run_is_left_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(folder)
    monkeypatch.setattr(trainer, "load_policy", None)
    summary = train(load_recipe(folder / "sft.toml"), folder / "sft-whole", resume=True, console=Console(quiet=True))
    assert (summary.updates, summary.interrupted) == (3, False)
    assert summary.before is not None
    assert summary.after is not None
    assert everything(folder / "sft-whole") == expected


def test_what_cannot_be_continued_is_refused(folder: Path, stopped: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "sft.toml")
    with pytest.raises(UserError, match="nowhere: holds no run to continue"):
        train(recipe, tmp_path / "nowhere", resume=True)
    with RunFolder(stopped).locked(), pytest.raises(UserError, match="another process is writing a run here"):
        train(recipe, stopped, resume=True)


def test_only_the_newest_checkpoints_are_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(folder / "sft.toml", ["checkpoints.keep=2", "stages.0.updates=5"])
    stop_in(4, signal.SIGTERM, monkeypatch)
    train(recipe, tmp_path / "run", console=Console(quiet=True))
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["000003", "000004"]
