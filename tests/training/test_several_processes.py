"""`swe-srl train` launched with two processes does what it does with one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import trajectory
from rich.console import Console
from safetensors.torch import load_file
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
TORCHRUN = ["-m", "torch.distributed.run"]
OF_ONE = {"seconds", "peak_memory_mb", "forward_tokens"}
"""What need not be equal: a trunk that is split goes forward in both processes."""


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


def launch(*arguments: object, how: Sequence[str] = ("--standalone", "--nproc-per-node", "2")) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *TORCHRUN, *how, "-m", "swe_srl.cli", "train", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def alone(folder: Path, out: Path, **options: Any) -> None:
    train(load_recipe(folder / "recipe.toml"), out, console=Console(quiet=True), **options)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The run by one process."""
    alone(folder, folder / "whole")
    assert sum("loss" in line and line["objective"] == "srl" for line in lines(folder / "whole", "metrics.jsonl")) >= 2
    return folder / "whole"


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def await_lines(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(lines(run, "metrics.jsonl")) < count and process.poll() is None:
        time.sleep(0.02)


def close(value: Any, tolerance: float) -> Any:
    """As pytest.approx, inside what holds other values."""
    if isinstance(value, dict):
        return {key: close(inner, tolerance) for key, inner in value.items() if key not in OF_ONE}
    if isinstance(value, list):
        return [close(inner, tolerance) for inner in value]
    return pytest.approx(value, rel=tolerance, abs=tolerance) if isinstance(value, float) else value


def assert_alike(run: Path, expected: Path, tolerance: float = 1e-4) -> None:
    for name in ("metrics.jsonl", "samples.jsonl"):
        found = [{key: value for key, value in line.items() if key not in OF_ONE} for line in lines(run, name)]
        assert found == close(lines(expected, name), tolerance), name
    names = [path.name for path in sorted(expected.glob("evaluation-*.json"))]
    assert names == [path.name for path in sorted(run.glob("evaluation-*.json"))]
    for name in names:
        assert json.loads((run / name).read_text()) == close(json.loads((expected / name).read_text()), tolerance), name
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in expected.iterdir())
    for checkpoint in ("checkpoint", "checkpoint-best"):
        weights, others = (load_file(path / checkpoint / "model.safetensors") for path in (run, expected))
        assert weights.keys() == others.keys()
        apart = torch.cat([(weights[key] - others[key]).abs().flatten() for key in weights])
        assert apart.max() < 5e-5


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
    assert_alike(run, whole)
    assert errors.count("continuing") == 1
    assert "warning: processes 1 → 2 since the run began" in errors, errors


def test_two_machines_go_on_where_three_processes_with_sharded_weights_were_stopped(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    three = ("--standalone", "--nproc-per-node", "3")
    process = launch(folder / "recipe.toml", "--out", run, "--set", 'model.weights="sharded"', how=three)
    await_lines(run, 4, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert (run / "run.json").exists(), errors
    status = json.loads((run / "run.json").read_text())
    assert status["status"] == "interrupted", errors
    assert 4 <= status["updates"] < 7
    assert "SIGTERM: stopped after" in errors
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    each = ("--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port)
    machines = [launch("--resume", run, "--json", how=(*each, "--node-rank", str(rank))) for rank in range(2)]
    told = [machine.communicate(timeout=120) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert [json.loads(output)["updates"] for output, _ in told if output] == [7], "the first process prints the summary"
    assert "warning: processes 3 → 2 since the run began" in told[0][1]
    assert_alike(run, whole)


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
