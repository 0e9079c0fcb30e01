"""`swe-srl train` launched with two processes does what it does with one."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import trajectory
from rich.console import Console
from several import OF_ONE, assert_alike, close, finish, launch, lines
from tiny_runs import RECIPE, learn_the_format

from swe_srl.recipes import load_recipe
from swe_srl.training.trainer import train

RUN = """
[sampling]
samples = 4
max_tokens = 110
[evaluation]
every = 2
best = "mean_reward"
[checkpoints]
every = 0
[[stages]]
objective = "sft"
updates = 3
steps_per_update = 3
lr = 1e-3
[[stages]]
objective = "srl"
updates = 4
steps_per_update = 3
lr = 1e-3
max_refills = 1
aggregation = "token"
mini_batches = 2
from_best = true
kl_coefficient = 0.1
"""
CHECKPOINTS = ("checkpoint", "checkpoint-best")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories, and a tiny policy that has learnt to answer in the right format most of the time."""
    folder = tmp_path_factory.mktemp("several")
    runs = [
        trajectory("a", "lib-1", ["ls", "ls", "ls"]),
        trajectory("b", "lib-2", ["ls"]),
        trajectory("c", "held-1", ["ls"] * 2),
    ]
    learn_the_format(folder, runs)
    (folder / "recipe.toml").write_text((RECIPE + RUN).format(folder=folder))
    return folder


def alone(folder: Path, out: Path, **options: Any) -> None:
    train(load_recipe(folder / "recipe.toml"), out, console=Console(quiet=True), **options)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The run by one process."""
    alone(folder, folder / "whole")
    assert sum("loss" in line and line["objective"] == "srl" for line in lines(folder / "whole", "metrics.jsonl")) >= 2
    return folder / "whole"


def await_lines(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(lines(run, "metrics.jsonl")) < count and process.poll() is None:
        time.sleep(0.02)


def stop_after_an_update(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return step(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", interrupted)
        alone(folder, out)


def test_two_with_all_the_weights_go_on_where_one_stopped(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_after_an_update(folder, run, monkeypatch)
    assert len(lines(run, "metrics.jsonl")) == 1
    process = launch("--resume", run, "--json")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(output)["updates"] == 7, "one process prints the summary"
    assert_alike(run, whole, checkpoints=CHECKPOINTS)
    assert errors.count("continuing") == 1
    assert "warning: processes 1 → 2 since the run began" in errors, errors


def test_with_sharded_weights_two_go_on_where_three_were_stopped_and_one_where_they_were(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def stop(process: subprocess.Popen[str], updates: int) -> None:
        await_lines(run, updates, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
        assert (run / "run.json").exists(), errors
        status = json.loads((run / "run.json").read_text())
        assert status["status"] == "interrupted", errors
        assert updates <= status["updates"] < 7
        assert "SIGTERM: stopped after" in errors

    stop(launch(folder / "recipe.toml", "--out", run, "--set", 'model.weights="sharded"', processes=3), 1)
    stop(launch("--resume", run, processes=2), 4)
    alone(folder, run, resume=True)
    assert_alike(run, whole, checkpoints=CHECKPOINTS)


def test_an_engine_samples_for_two_with_sharded_weights_while_they_train(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "recipe.toml", ["sampling.staleness=1", 'stages.1.mismatch="token"'])
    stage = recipe.stages[1].model_copy(update={"from_best": False, "kl_coefficient": 0.0})
    evaluation = recipe.evaluation.model_copy(update={"best": None})
    (folder / "ahead.toml").write_text(
        recipe.model_copy(update={"stages": [stage], "evaluation": evaluation}).to_toml(), encoding="utf-8"
    )
    train(load_recipe(folder / "ahead.toml"), tmp_path / "one", console=Console(quiet=True))
    two = tmp_path / "two"
    finish(launch(folder / "ahead.toml", "--out", two, "--set", 'model.weights="sharded"'))
    metrics = lines(two, "metrics.jsonl")
    assert [line["staleness"] for line in metrics] == [0, 1, 1, 1]
    assert all(line["engines"] for line in metrics)
    assert sum("loss" in line for line in metrics) >= 2, "they learn something"
    assert_alike(two, tmp_path / "one")


def test_sharded_adapters_and_the_kl_to_the_model_without_them(folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(folder / "recipe.toml", ["model.lora.rank=4"])
    stage = recipe.stages[1].model_copy(update={"from_best": False, "kl_coefficient": 1.0, "updates": 3})
    off = recipe.evaluation.model_copy(update={"enabled": False, "every": None, "best": None})
    adapted = recipe.model_copy(update={"stages": [stage], "evaluation": off})
    (folder / "adapted.toml").write_text(adapted.to_toml())
    train(adapted, tmp_path / "one", console=Console(quiet=True))
    process = launch(folder / "adapted.toml", "--out", tmp_path / "two", "--set", 'model.weights="sharded"')
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    one, two = (lines(tmp_path / name, "metrics.jsonl") for name in ("one", "two"))
    updated = [line for line in one if "kl" in line]
    assert updated[0]["kl"] == 0.0, "an adapter begins as nothing"
    assert updated[-1]["kl"] > 1e-6
    assert [{key: value for key, value in line.items() if key not in OF_ONE} for line in two] == close(one, 1e-4)


def test_a_process_that_dies_ends_the_others(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = launch(folder / "recipe.toml", "--out", run)
    await_lines(run, 1, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {
        dict(item.split("=", 1) for item in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in item)["RANK"]: pid
        for pid in children
    }
    os.kill(int(ranks["1"]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "process 0 of 2 waited for" in errors
    assert "another process is gone" in errors
