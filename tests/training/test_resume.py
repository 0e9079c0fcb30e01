"""A run that is killed and continued writes what it would have written otherwise."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from conftest import tiny_llama, tiny_tokenizer
from hand_made import trajectory
from rich.console import Console
from safetensors.torch import load_file

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe
from swe_srl.training.trainer import train
from swe_srl.trajectories.storage import write_jsonl

RECIPE = """
seed = 5
[model]
name = "{folder}/policy"
device = "cpu"
[data]
train = ["{folder}/runs.jsonl"]
hold_out_tasks = ["held-*"]
[prompt]
last_pairs = 0
tool_descriptions = false
"""
LEARN_THE_FORMAT = """
[[stages]]
objective = "sft"
updates = 32
steps_per_update = 2
lr = 1e-2
schedule = "cosine"
"""
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
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories, and a tiny policy that has learnt to answer in the right format most of the time."""
    folder = tmp_path_factory.mktemp("resume")
    tokenizer: Any = tiny_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    runs = [trajectory("a", "lib-1", ["ls", "ls", "ls"]), trajectory("b", "lib-2", ["ls"]), trajectory("c", "held-1", ["ls"])]
    write_jsonl(folder / "runs.jsonl", runs)
    learn = RECIPE + "[evaluation]\nenabled = false\n" + LEARN_THE_FORMAT
    (folder / "learn.toml").write_text(learn.format(folder=folder))
    train(load_recipe(folder / "learn.toml"), folder / "learnt", console=Console(quiet=True))
    (folder / "policy").rename(folder / "random")
    (folder / "learnt" / "checkpoint").rename(folder / "policy")
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
        "weights": {f"{name}/{key}": tensor.numpy().tobytes() for name, part in weights.items() for key, tensor in part.items()},
        "left": sorted(path.name for path in run.iterdir()),
        "status": json.loads((run / "run.json").read_text())["status"],
    }


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
    for kill in sorted(chance.sample(range(events), 14)):
        out = tmp_path / f"killed-{kill}"
        process = killing.start(folder / "sft.toml", out, kill_before=kill)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
        finish(folder / "sft.toml", out)
        assert everything(out) == expected, f"killed before file event {kill} of {events}"


def test_killed_at_random_moments_again_and_again(folder: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    finish(folder / "srl.toml", tmp_path / "whole")
    seconds = time.monotonic() - began
    expected = everything(tmp_path / "whole")
    srl = [line for line in expected["metrics"] if line["objective"] == "srl"]
    assert sum(not line["skipped"] for line in srl) >= 2, "otherwise there is nothing to be lost"
    out, chance, kills = tmp_path / "killed", random.Random(1), 0
    for _ in range(6):
        process = killing.start(folder / "srl.toml", out)
        process.join(chance.uniform(0.1, 0.8) * seconds)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    finish(folder / "srl.toml", out)
    assert kills >= 3
    assert everything(out) == expected
