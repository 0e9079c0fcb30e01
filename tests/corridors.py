"""Outcome stages on the corridor of benchmarks/corridor.py: a tiny task, its expert and a tiny policy that can learn it."""

from __future__ import annotations

import importlib.util
import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from docker import DockerClient

from swe_srl.environments.image import REPOSITORY

ROOMS = 2
STAGE = """\
samples = 8
[evaluation]
best = "resolved_rate"
every = 100
[checkpoints]
every = {every}
[[stages]]
objective = "outcome"
tasks = ["{folder}/tasks.jsonl"]
updates = {updates}
steps_per_update = 1
max_refills = 0
passes = 4
lr = 1e-3
[stages.agent]
max_steps = 2
max_format_errors = 1
[stages.start]
at = "last"
n = 1
curriculum = {{threshold = 0.75}}
"""


def load_corridor() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "corridor.py"
    spec = importlib.util.spec_from_file_location("corridor", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["corridor"] = module
    spec.loader.exec_module(module)
    return module


corridor = load_corridor()


@contextmanager
def opened(client: DockerClient, folder: Path) -> Iterator[Path]:
    """A corridor of two rooms, its expert, and a policy that takes doors at random. Its images are removed afterwards."""
    name = f"corridor-{uuid.uuid4().hex[:8]}"
    corridor.prepare(folder, ROOMS, name=name, warm_up=100)
    yield folder
    for image in client.api.images(REPOSITORY):
        for tag in image["RepoTags"] or ():
            if name in tag:
                client.images.remove(tag, force=True)


def recipe(world: Path, name: str, updates: int, every: int = 0, **replaced: str) -> Path:
    text = corridor.RECIPE.format(seed=2, model=world / "policy", train=world / "experts.jsonl")
    text = text.replace("[data]\n", '[data]\nhold_out_tasks = ["held-out-*"]\n')
    text += STAGE.format(folder=world, updates=updates, every=every)
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    path = world / f"{name}.toml"
    path.write_text(text)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def everything(run: Path) -> dict[str, Any]:
    """All that a run wrote, times, memory and paths apart."""
    metrics = lines(run / "metrics.jsonl")
    for line in metrics:
        del line["seconds"], line["peak_memory_mb"]
    evaluations = {path.name: json.loads(path.read_text()) for path in run.glob("evaluation-*.json")}
    for written in evaluations.values():
        del written["rollouts"]["seconds"]
    weights = {path.parent.name: path.read_bytes() for path in run.glob("checkpoint*/*.safetensors")}
    return {"metrics": metrics, "samples": (run / "samples.jsonl").read_text(), "evaluations": evaluations, "weights": weights}
