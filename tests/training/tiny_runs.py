"""Training a tiny policy: what recipes begin with, a policy that can answer, and waiting for a run in another process."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from tiny_models import save_policy

from swe_srl.recipes import load_recipe
from swe_srl.training.trainer import train
from swe_srl.trajectories.model import Trajectory
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
"""What a recipe in a folder begins with."""
_LEARN_THE_FORMAT = """
[evaluation]
enabled = false
[[stages]]
objective = "sft"
updates = 60
steps_per_update = 4
lr = 1e-2
schedule = "cosine"
"""


def learn_the_format(folder: Path, runs: Sequence[Trajectory]) -> None:
    """Write the trajectories, and a tiny policy that has learnt to answer in the right format most of the time."""
    write_jsonl(folder / "runs.jsonl", runs)
    save_policy(folder / "policy")
    (folder / "learn.toml").write_text((RECIPE + _LEARN_THE_FORMAT).format(folder=folder))
    train(load_recipe(folder / "learn.toml"), folder / "learnt", console=Console(quiet=True))
    (folder / "policy").rename(folder / "random")
    (folder / "learnt" / "checkpoint").rename(folder / "policy")


def updates(run: Path) -> int:
    """Updates in a run's metrics."""
    metrics = run / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 240) -> None:
    """Wait, for as long as the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
