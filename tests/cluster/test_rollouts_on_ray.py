"""Rollouts on a cluster of two machines: this one's daemon, and a second daemon that stands for another machine's."""

from __future__ import annotations

import dataclasses
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from machines import until
from second_daemon import Daemon
from two_machines import TwoMachines

from swe_srl.cluster.ray import RayCluster
from swe_srl.config import EffectReward, RewardsSection
from swe_srl.environments.docker import remove_image
from swe_srl.environments.image import build_image
from swe_srl.environments.nodes import Nodes
from swe_srl.environments.normalise import normalise
from swe_srl.environments.replaying import ReplayWork, replay_all
from swe_srl.environments.shipping import Shipping, send_image
from swe_srl.environments.snapshots import FILE as SNAPSHOTS
from swe_srl.environments.snapshots import SnapshotMap, read_map
from swe_srl.environments.spreading import spread_images
from swe_srl.environments.task import load_tasks
from swe_srl.policy.format import render_answer
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rewards.compose import Sampled, build_rewards
from swe_srl.rewards.executing import effect_values, open_forks
from swe_srl.rewards.reward import Unscored
from swe_srl.rollouts.agent import AgentConfig
from swe_srl.rollouts.command import PolicyChoice, StartChoice, rollout_command
from swe_srl.rollouts.folder import ROLLOUTS
from swe_srl.rollouts.policies import ScriptedPolicy
from swe_srl.rollouts.record import read_record
from swe_srl.rollouts.run import RolloutOptions, RolloutReport, run_rollouts
from swe_srl.rollouts.starts import Start, StartRule, parse_start, starts
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory, Turn

pytestmark = pytest.mark.xdist_group("ray")
ROOT = Path(__file__).parents[2]
NAME = "ttlbox-expiry-edge"
TASK = ROOT / "environments" / NAME
TASKS = load_tasks([TASK]).tasks
[EXPERT] = load([ROOT / f"trajectories/{NAME}.jsonl"])
STEPS = list(EXPERT.steps())
SLOW = Turn("agent", "", "x", Action((ToolCall("bash", {"command": "sleep 2"}),)), Observation("OBSERVATION:\n", ""))
SLOWLY = ScriptedPolicy([dataclasses.replace(EXPERT, turns=(EXPERT.turns[0], SLOW, *EXPERT.turns[1:]))])


@pytest.fixture(scope="module")
def shipping(tmp_path_factory: pytest.TempPathFactory) -> Shipping:
    """Nodes load the task's image from a folder that they share."""
    return Shipping.parse(f"folder:{tmp_path_factory.mktemp('images')}")


@pytest.fixture
def roll_out(machines: TwoMachines, shipping: Shipping) -> Callable[..., RolloutReport]:
    """Rollouts, on the cluster unless `here`."""

    def run(policy: Any, out: Path, begin: list[Start], here: bool = False, say: Any = print, **more: Any) -> RolloutReport:
        where = "local" if here else "ray"
        options = RolloutOptions(AgentConfig(max_steps=30), workers=2, cluster=where, shipping=shipping, **more)
        if here:
            return run_rollouts(begin, TASKS, policy, out, {}, options, say)
        with RayCluster(None, say) as cluster:
            return run_rollouts(begin, TASKS, policy, out, {}, options, say, cluster=cluster)

    return run


def at(rule: str, snapshots: Path | None = None) -> list[Start]:
    found, left_out = starts(parse_start(rule), TASKS, [EXPERT], None, snapshots)
    assert left_out == []
    return found


def _compared(rollouts: list[Trajectory]) -> list[Any]:
    """Everything but how long it took."""
    return [
        (
            run.id,
            [
                (turn.role, turn.text, turn.action, normalise(turn.observation.text if turn.observation else ""))
                for turn in run.turns
            ],
            run.exit_status,
            run.resolved,
            run.submission,
            read_record(run).tests,
        )
        for run in rollouts
    ]


def test_rollouts_are_those_of_this_machine(
    roll_out: Callable[..., RolloutReport], other_daemon: tuple[Daemon, DockerClient], client: DockerClient, tmp_path: Path
) -> None:
    here = roll_out(SLOWLY, tmp_path / "here", at("issue"), here=True)
    there = roll_out(SLOWLY, tmp_path / "there", at("issue"), attempts=4)

    [alone] = _compared(here.rollouts)
    assert (there.failed, alone[3]) == ([], True)
    assert _compared(there.rollouts) == [(f"{NAME}-rollout-{n}", *alone[1:]) for n in range(4)]
    assert len(load([tmp_path / "there" / ROLLOUTS])) == 4
    assert other_daemon[1].images.list("swe-srl/task"), "both machines had a part in it"
    assert other_daemon[1].containers.list(all=True) == []


@pytest.fixture(scope="module")
def states(
    machines: TwoMachines, client: DockerClient, shipping: Shipping, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Trajectory]]:
    """The folder of a replay of four runs on both machines that kept their states, and the runs."""
    tag, folder = build_image(client, TASKS[NAME]).tag, tmp_path_factory.mktemp("states")
    send_image(client, tag, shipping, print)
    # Names of this test run's own: the same run's states would make room for these.
    runs = [dataclasses.replace(EXPERT, id=f"{folder.parent.name}-{os.getpid()}-{number}") for number in range(4)]
    kept = SnapshotMap(client, folder, "changed")
    work = ReplayWork({NAME: tag}, TASKS, False, keep="changed", snapshots=kept, shipping=shipping, client=client)
    with RayCluster(None, print) as cluster:
        assert replay_all(work, runs, cluster).failed == []
    return folder, runs


def test_a_state_is_forked_where_it_is_kept_and_made_again_where_it_is_no_more(
    roll_out: Callable[..., RolloutReport],
    other_daemon: tuple[Daemon, DockerClient],
    states: tuple[Path, list[Trajectory]],
    tmp_path: Path,
) -> None:
    (folder, runs), other = states, other_daemon[1]
    k = next(step.k for step in STEPS if step.action.call.arguments["command"] == "insert") + 1
    begin, left_out = starts(parse_start(f"step:{k}"), TASKS, runs, None, folder)
    there = {name for image in other.images.list("swe-srl/snapshot") for name in image.tags}
    elsewhere = [start.trajectory.id for start in begin if start.image in there]
    assert 0 < len(elsewhere) < 4, "each machine keeps some"

    policy = ScriptedPolicy([EXPERT])
    forked = roll_out(policy, tmp_path / "forked", begin)
    assert [read_record(run).start["exact"] for run in forked.rollouts] == [None] * 4

    for image in read_map(folder / SNAPSHOTS)[elsewhere[0].partition("@")[0]].values():
        remove_image(other, image)
    said: list[str] = []
    again = roll_out(policy, tmp_path / "again", begin, say=said.append)
    assert "1 of 4 states are kept nowhere any more: the steps before them are executed again" in said
    exact = {run.id: read_record(run).start["exact"] for run in again.rollouts}
    assert exact == {f"{start.trajectory.id}-rollout-0": k if start.trajectory.id == elsewhere[0] else None for start in begin}
    assert (left_out, _compared(again.rollouts)) == ([], _compared(forked.rollouts))
    assert {run.resolved for run in again.rollouts} == {True}


def test_what_a_lost_machine_had_is_done_again_and_what_was_finished_is_kept(
    roll_out: Callable[..., RolloutReport], machines: TwoMachines, other_daemon: tuple[Daemon, DockerClient], tmp_path: Path
) -> None:
    other, found = other_daemon[1], []
    written = tmp_path / ROLLOUTS
    running = threading.Thread(target=lambda: found.append(roll_out(SLOWLY, tmp_path, at("issue"), attempts=7)))
    running.start()
    until(lambda: written.is_file() and written.read_bytes().count(b"\n") >= 2 and other.containers.list())
    finished = written.read_bytes()
    machines.lose_second()
    running.join(180)
    machines.second = machines.add_second()

    [report] = found
    assert (report.failed, {run.resolved for run in report.rollouts}) == ([], {True})
    assert [run.id for run in report.rollouts] == [f"{NAME}-rollout-{n}" for n in range(7)]
    assert written.read_bytes().startswith(finished), "what was finished is not made again"
    assert written.read_bytes().count(b"\n") == 7


def test_effects_found_on_the_nodes_are_those_found_here(
    states: tuple[Path, list[Trajectory]], shipping: Shipping, tmp_path: Path
) -> None:
    (folder, runs), tasks = states, [str(TASK)]
    k = next(step.k for step in STEPS if step.action.call.arguments["command"] == "insert")
    commands = ("cat README.md", "echo x >> ttlbox/box.py")
    steps = [step for run in runs for step in run.steps() if step.k in (0, k)]
    pairs = [(step, Action((ToolCall("bash", {"command": command}),))) for step in steps for command in commands]
    here = effect_values(open_forks(EffectReward(tasks=tasks, cache=str(tmp_path / "here"))), pairs)
    options = EffectReward(tasks=tasks, replay=str(folder), cache=str(tmp_path / "there"))
    with RayCluster(None, print) as cluster:
        nodes = Nodes(cluster, shipping, print)
        forks = open_forks(options, nodes=nodes)
        assert effect_values(forks, pairs) == here
        executed = forks.spent.executed
        assert effect_values(forks, pairs) == here
        hurried = options.model_copy(update={"cache": str(tmp_path / "hurried"), "max_seconds": 1e-9})
        late = effect_values(open_forks(hurried, nodes=nodes), pairs)

    assert len({value for value in here if not isinstance(value, Unscored)}) > 1
    assert (executed, forks.spent.faults) == (len(steps) * (1 + len(commands)), 0), "once, the experts' own too"
    assert set(late) == {Unscored("the time limit was reached")}


def test_a_recipes_effects_are_found_on_the_nodes(shipping: Shipping, tmp_path: Path) -> None:
    class Asked(Exception):
        """By the reward."""

    class Elsewhere:
        def run(self, *args: Any, **kwargs: Any) -> Any:
            raise Asked

    def section(cache: str) -> RewardsSection:
        return RewardsSection(effect=EffectReward(tasks=[str(TASK)], cache=str(tmp_path / cache)))

    text = render_answer("Why not.", Action((ToolCall("bash", {"command": "ls"}),)))
    sampled = Sampled(STEPS[0], text, "stop", get_scaffold(EXPERT.scaffold).tools)
    [here] = build_rewards(section("here")).score([sampled])
    assert here.parts["effect"] is not None
    nodes = Nodes(Elsewhere(), shipping, print)  # type: ignore[arg-type]
    with pytest.raises(Asked):
        build_rewards(section("there"), nodes).score([sampled])


@pytest.mark.usefixtures("machines")
def test_a_model_on_one_node_answers_the_rollouts_of_all(
    client: DockerClient, tiny_model: Path, shipping: Shipping, tmp_path: Path
) -> None:
    choice = PolicyChoice(str(tiny_model), temperature=0.0, answer_tokens=6)
    prompt = PromptOptions(tool_descriptions=False, max_prompt_tokens=1000)
    drawn = {}
    for where in ("local", "ray"):
        agent = AgentConfig(max_steps=3, max_format_errors=4)
        options = RolloutOptions(agent, attempts=3, workers=2, cluster=where, shipping=shipping)
        start = StartChoice(StartRule("issue"))
        report = rollout_command([TASK], None, tmp_path / where, choice, prompt, start, options, print)
        assert (report.failed, [run.exit_status for run in report.rollouts]) == ([], ["steps"] * 3)
        runs = sorted(load([tmp_path / where / ROLLOUTS]), key=lambda run: run.id)
        sampled = [(turn.text, turn.sampled) for run in runs for turn in run.turns if turn.sampled]
        drawn[where] = [(text, each.prompt_ids, each.token_ids, len(each.logprobs)) for text, each in sampled]
    assert len(drawn["local"]) == 9
    assert drawn["ray"] == drawn["local"]


@pytest.mark.usefixtures("machines")
def test_every_node_that_takes_sandboxes_has_the_images_afterwards(
    client: DockerClient, other_daemon: tuple[Daemon, DockerClient], tmp_path: Path
) -> None:
    other, way = other_daemon[1], Shipping.parse(f"folder:{tmp_path}")
    tag, new = build_image(client, TASKS[NAME]).tag, "swe-srl/task:spread"
    client.images.get(tag).tag(new)
    damaged = Shipping("folder", str(tmp_path / "damaged"))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "swe-srl-task-spread.tar").write_bytes(b"no archive")
    try:
        with RayCluster(None, print) as cluster:
            had, failed = spread_images(cluster, client, {NAME: new}, TASKS, damaged, print)
            assert (had, [failure["task"] for failure in failed]) == ({NAME: 1}, [NAME]), "this machine has it already"
            assert re.match(r"node \w{8}: loading .*swe-srl-task-spread\.tar", failed[0]["reason"])
            assert spread_images(cluster, client, {NAME: new}, TASKS, way, print) == ({NAME: 2}, [])
        assert other.images.get(new).id == client.images.get(tag).id
    finally:
        remove_image(client, new)
