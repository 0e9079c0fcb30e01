"""Outcome stages in real containers: a tiny policy learns a tiny task, is killed and goes on, and loses its sandboxes."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import math
import random
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import killing
import pytest
from corridors import corridor, everything, lines, opened, recipe
from docker import DockerClient
from rich.console import Console
from several import assert_alike, finish, launch

from swe_srl.config import AgentConfig, OutcomeStage, StartSection
from swe_srl.environments.docker import RUN_ID, RUN_LABEL, DockerSandbox
from swe_srl.environments.image import build_image
from swe_srl.errors import UserError
from swe_srl.policy.format import render_answer
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.recipes import load_recipe
from swe_srl.report.html import write_report
from swe_srl.rollouts.agent import Reply, roll_out
from swe_srl.rollouts.own_history import OwnHistory
from swe_srl.rollouts.rounds import Rounds
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.training.data import load_dataset
from swe_srl.training.outcome import Origin, OutcomeBatches, open_rollouts, start_of
from swe_srl.training.trainer import train
from swe_srl.trajectories.model import Sampled, Step


@pytest.fixture(scope="module")
def world(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with opened(client, tmp_path_factory.mktemp("world")) as folder:
        yield folder


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


def test_two_processes_learn_from_the_rollouts_of_one(world: Path, tmp_path: Path) -> None:
    path = recipe(world, "for-two", 2)
    train(load_recipe(path), tmp_path / "one", console=Console(quiet=True))
    finish(launch(path, "--out", tmp_path / "two", "--set", 'model.weights="sharded"'))
    assert any(not line["skipped"] for line in lines(tmp_path / "two" / "metrics.jsonl")), "something is learnt"
    assert_alike(tmp_path / "two", tmp_path / "one")


def batches(world: Path, name: str, **replaced: str) -> OutcomeBatches:
    read = load_recipe(recipe(world, name, 1, **replaced))
    model, tokenizer = load_policy(read.model.name)
    dataset = load_dataset(read, tokenizer)
    rollouts = open_rollouts(read, dataset, tokenizer, 1024, print)[0]
    return OutcomeBatches(rollouts, TransformersSampler(model, tokenizer), read.sampling_of(read.stages[0]), "0")


class KillsAll(Rounds):
    """Before answers are given, so many times, all sandboxes are killed."""

    def __init__(self, client: DockerClient, times: float = math.inf) -> None:
        super().__init__()
        self.client, self.times = client, times

    def answer(self, answers: Mapping[int, Reply | Exception]) -> None:
        if self.times > 0:
            self.times -= 1
            for container in self.client.containers.list(filters={"label": f"{RUN_LABEL}={RUN_ID}"}):
                container.kill("SIGKILL")
        super().answer(answers)


def test_rollouts_whose_sandboxes_are_lost_again_are_masked(world: Path, client: DockerClient) -> None:
    source = batches(world, "lost", **{"samples = 8": "samples = 2"})
    source.rollouts.site = dataclasses.replace(source.rollouts.site, meeting=KillsAll(client))
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


def test_rollouts_whose_sandboxes_are_lost_once_are_made_as_they_would_have_been(world: Path, client: DockerClient) -> None:
    drawn = []
    for times in (0, 1):
        source = batches(world, f"lost-{times}", **{"n = 1": "n = 2"})
        meeting = KillsAll(client, times)
        source.rollouts.site = dataclasses.replace(source.rollouts.site, meeting=meeting)
        drawn.append(next(source))
        assert meeting.times == 0
    assert len({str(sample["turns"]) for group in drawn[0].records for sample in group["samples"]}) > 1
    assert drawn[1].records == drawn[0].records
    assert drawn[1].examples == drawn[0].examples


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
