"""Outcome stages in real containers: a tiny policy learns a tiny task, is killed and goes on, and loses its sandboxes."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import random
import re
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import killing
import pytest
from docker import DockerClient
from rich.console import Console

from swe_srl.config import AgentConfig, OutcomeStage, StartSection
from swe_srl.environments.docker import RUN_ID, RUN_LABEL, DockerSandbox
from swe_srl.environments.image import REPOSITORY, build_image
from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, Sampler, SamplingOptions
from swe_srl.policy.format import render_answer
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.recipes import load_recipe
from swe_srl.report.html import write_report
from swe_srl.rollouts.agent import Reply, roll_out
from swe_srl.rollouts.own_history import OwnHistory
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.training.data import load_dataset
from swe_srl.training.outcome import Origin, OutcomeBatches, open_rollouts, start_of
from swe_srl.training.trainer import train
from swe_srl.trajectories.model import Sampled, Step

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
    path = Path(__file__).parents[2] / "benchmarks" / "corridor.py"
    spec = importlib.util.spec_from_file_location("corridor", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["corridor"] = module
    spec.loader.exec_module(module)
    return module


corridor = load_corridor()


@pytest.fixture(scope="module")
def world(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corridor of two rooms, its expert, and a policy that takes doors at random. Its images are removed afterwards."""
    folder = tmp_path_factory.mktemp("world")
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


def rate(run: Path, name: str) -> float:
    return float(json.loads((run / f"evaluation-{name}.json").read_text())["rollouts"]["resolved_rate"]["value"])


def test_from_experts_states_a_policy_learns_what_it_could_not_do(world: Path, tmp_path: Path) -> None:
    train(load_recipe(recipe(world, "learns", 10)), tmp_path, console=Console(quiet=True))
    metrics = lines(tmp_path / "metrics.jsonl")
    assert (rate(tmp_path, "before"), rate(tmp_path, "after")) == (0.0, 1.0), "the held-out corridor, greedily from the issue"
    assert metrics[0]["steps_left_mean"] == 1.0, "it begins one step before the expert's end"
    first = next(number for number, line in enumerate(metrics) if line["steps_left_mean"] == 2.0)
    assert metrics[first - 1]["resolved"] >= 0.75, "and moves back when the threshold is passed"
    assert metrics[first]["resolved"] <= 0.25
    assert sum(line["resolved"] for line in metrics[-3:]) / 3 >= 0.8
    assert (tmp_path / "checkpoint-best").is_dir()
    groups = lines(tmp_path / "samples.jsonl")
    assert [len(group["samples"]) for group in groups] == [8] * 10
    packed = re.findall(r">(H4sI[^<]*)<", write_report([tmp_path]).read_text())
    assert sum(gzip.decompress(base64.b64decode(part)).count(b"sh go") for part in packed) > 8


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


def test_killed_and_continued_it_makes_the_same_rollouts(world: Path, tmp_path: Path) -> None:
    path = recipe(world, "killed", 2, every=1, **{"samples = 8": "samples = 4"})
    counted = tmp_path / "count"
    process = killing.start(path, tmp_path / "whole", count=counted)
    process.join()
    assert process.exitcode == 0
    kill_before = random.Random(7).randrange(int(counted.read_text()) // 2, int(counted.read_text()))
    process = killing.start(path, tmp_path / "killed", kill_before=kill_before)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = killing.start(path, tmp_path / "killed")
    process.join()
    assert process.exitcode == 0
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")


def batches(world: Path, name: str, **replaced: str) -> OutcomeBatches:
    read = load_recipe(recipe(world, name, 1, **replaced))
    model, tokenizer = load_policy(read.model.name)
    dataset = load_dataset(read, tokenizer)
    rollouts = open_rollouts(read, dataset, tokenizer, 1024, print)[0]
    return OutcomeBatches(rollouts, TransformersSampler(model, tokenizer), read.sampling_of(read.stages[0]), "0")


class KillsAll:
    """A sampler in whose every call all sandboxes are killed."""

    def __init__(self, sampler: Sampler, client: DockerClient) -> None:
        self.sampler, self.client = sampler, client

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        for container in self.client.containers.list(filters={"label": f"{RUN_LABEL}={RUN_ID}"}):
            container.kill("SIGKILL")
        return self.sampler.sample(prompts, options)


def test_rollouts_whose_sandboxes_are_lost_are_masked(world: Path, client: DockerClient) -> None:
    source = batches(world, "lost", **{"samples = 8": "samples = 2"})
    source._sampler = KillsAll(source._sampler, client)  # type: ignore[assignment]
    before = source.state()
    batch = next(source)
    assert batch.examples == []
    assert (batch.metrics["masked"], batch.metrics["masked_because"]) == (2, {"sandbox_fault": 2})
    assert (batch.metrics["resolved"], batch.metrics["reward_mean"], batch.metrics["ends"]) == (
        None,
        None,
        {"sandbox_fault": 2},
    )
    assert source.curriculum.state() == {key: value for key, value in before.items() if "/" in key}, "it says nothing"


def test_one_update_learns_from_the_policys_own_tokens_alone(world: Path) -> None:
    source = batches(world, "one", **{"n = 1": "n = 2"})
    batch = next(source)
    [group] = batch.records
    told = [sample["advantage"] for sample in group["samples"]]
    examples = list(batch.examples)
    if group["kept"]:
        assert sum(len(e.answer_ids) for e in examples) == sum(sample["tokens"] for sample in group["samples"])
        assert sum(told) == pytest.approx(0.0, abs=1e-9)
    for sample in group["samples"]:
        assert [turn["tokens"] for turn in sample["turns"]] == [5] * len(sample["turns"])
    assert batch.metrics["rollouts"] == 8


class Walks:
    """Takes these doors, one after another."""

    name = "walks"

    def __init__(self, *doors: str) -> None:
        self.commands = iter(f"sh go {room} {door}" for room, door in zip(corridor.ROOMS, doors, strict=False))

    def reply(self, step: Step, tools: Any) -> Reply:
        action = Action((ToolCall("bash", {"command": next(self.commands)}),))
        return Reply(render_answer("Why not.", action), "stop", Sampled(7, 1, (1,), (1,), (0.0,)))

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("threshold", "copied"), [(1.0, [False, True]), (0.5, [False, False])])
def test_its_own_turns_stand_where_they_match_the_experts(
    client: DockerClient, world: Path, threshold: float, copied: list[bool]
) -> None:
    doors = ["left", "ahead", "back"]
    task = corridor.make_task(world, f"{lines(world / 'tasks.jsonl')[0]['id']}-guided", doors)
    expert = corridor.walk("expert", task.id, doors)
    origin = Origin(task, "", expert, tuple(expert.steps()))
    start = start_of(origin, StartSection(at="last", n=1, own_history=threshold), 1)
    assert (start.trajectory.id, start.expert, start.prefix) == ("expert@2", ("expert", 2), ())
    assert len(start.trajectory.turns) == 1, "the policy is asked from the issue on"
    policy = OwnHistory(Walks("left", "right", "back"), start.led, threshold)
    with DockerSandbox.start(client, build_image(client, task).tag) as sandbox:
        made = roll_out(policy, sandbox, start.trajectory, AgentConfig(max_steps=5)).trajectory
        walked = sandbox.read_file("/testbed/walked").decode().split()[1::2]
    turns = [turn for turn in made.turns if turn.role == "agent"]
    assert [turn.context_only for turn in turns] == [*copied, False]
    assert walked == ["left", "ahead" if copied[1] else "right", "back"]
    assert made.exit_status == "submitted"


def test_what_cannot_be_rolled_out_is_refused_or_left_out(world: Path) -> None:
    with pytest.raises(UserError, match=r"stages\.0\.tasks: nothing to roll out; left out: 1, held out: 1"):
        batches(world, "none", **{'at = "last"\nn = 1\ncurriculum = {threshold = 0.75}': 'at = "step"\nn = 2'})
    with pytest.raises(UserError, match="best is resolved_rate, and none of its tasks is held out"):
        batches(world, "no-held-out", **{'hold_out_tasks = ["held-out-*"]': ""})


def test_options_without_a_use_are_refused() -> None:
    def refused(**options: Any) -> str:
        with pytest.raises(ValueError, match="validation error") as caught:
            OutcomeStage(objective="outcome", updates=1, lr=1.0, tasks=["t"], **options)
        return str(caught.value)

    assert 'importance = "sequence" needs one answer a sample' in refused(importance="sequence")
    assert 'mismatch = "sequence" needs one answer a sample' in refused(mismatch="sequence")
    assert 'order = "trajectories" has no use' in refused(order="trajectories")
    assert 'at = "issue" does not take n' in refused(start={"n": 1})
    assert 'at = "step" needs n' in refused(start={"at": "step"})
    assert 'a curriculum needs at = "last"' in refused(start={"at": "step", "n": 1, "curriculum": {}})
    assert 'at = "last" does not take scaffold' in refused(start={"at": "last", "n": 1, "scaffold": "swe-agent"})
    assert "own_history does not take snapshots" in refused(start={"at": "step", "n": 1, "snapshots": "x", "own_history": 1.0})
