"""Replays on a cluster of two machines: this one's daemon, and a second daemon that stands for another machine's."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
from docker import DockerClient
from machines import until
from second_daemon import Daemon
from two_machines import TwoMachines

from swe_srl.cluster.local import LocalCluster
from swe_srl.cluster.ray import RayCluster
from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.fidelity import TrajectoryReplay
from swe_srl.environments.image import build_image
from swe_srl.environments.node_status import node_status
from swe_srl.environments.replaying import ReplayWork, replay_all
from swe_srl.environments.shipping import Shipping, send_image
from swe_srl.environments.snapshots import SnapshotMap, kept_whole
from swe_srl.environments.task import load_tasks
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory, Turn

pytestmark = pytest.mark.xdist_group("ray")
ROOT = Path(__file__).parents[2]
NAME = "ttlbox-expiry-edge"
TASK = load_tasks([ROOT / "environments"]).tasks[NAME]
[EXPERT] = load([ROOT / f"trajectories/{NAME}.jsonl"])


def _runs(count: int, *more: Turn) -> list[Trajectory]:
    turns = (EXPERT.turns[0], *more, *EXPERT.turns[1:])
    return [dataclasses.replace(EXPERT, id=f"run-{number}", turns=turns) for number in range(count)]


SLOW = Turn("agent", "", "x", Action((ToolCall("bash", {"command": "sleep 2"}),)), Observation("OBSERVATION:\n", ""))


@pytest.fixture(scope="module")
def work(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> ReplayWork:
    """Of the shipped task; nodes load its image from a folder that they share."""
    shipping = Shipping.parse(f"folder:{tmp_path_factory.mktemp('images')}")
    tag = build_image(client, TASK).tag
    send_image(client, tag, shipping, print)
    return ReplayWork({NAME: tag}, {NAME: TASK}, client=client, shipping=shipping)


def _compared(replays: list[TrajectoryReplay]) -> list[tuple[object, ...]]:
    return [
        (
            replay.id,
            replay.error,
            replay.tests,
            [(step.k, step.exact, step.similarity, step.returncode) for step in replay.steps],
        )
        for replay in replays
    ]


@pytest.mark.usefixtures("machines")
def test_results_and_states_are_those_of_this_machine(
    client: DockerClient, work: ReplayWork, other_daemon: tuple[Daemon, DockerClient], tmp_path: Path
) -> None:
    runs, other = _runs(4, SLOW), other_daemon[1]
    here = replay_all(work, runs, LocalCluster(2))
    states = SnapshotMap(client, tmp_path, "changed")
    with RayCluster(None, print) as cluster:
        there = replay_all(dataclasses.replace(work, keep="changed", snapshots=states), runs, cluster)

    assert _compared(there.trajectories) == _compared(here.trajectories)
    assert [replay.tests is not None and replay.tests.resolved for replay in there.trajectories] == [True] * 4
    assert other.images.get(work.images[NAME]).id == client.images.get(work.images[NAME]).id, "the same to the bit"
    steps = sum(1 for _ in runs[0].steps())
    assert kept_whole(client, tmp_path) == dict.fromkeys([run.id for run in runs], steps + 1)
    assert other.images.list("swe-srl/snapshot"), "states stay where they were made"


def test_what_a_lost_machine_had_is_done_again_and_its_remains_are_removed(
    client: DockerClient, machines: TwoMachines, work: ReplayWork, other_daemon: tuple[Daemon, DockerClient]
) -> None:
    runs, other, found = _runs(4, SLOW), other_daemon[1], []

    def replay() -> None:
        with RayCluster(None, print) as cluster:
            found.append(replay_all(work, runs, cluster))

    ended = set(other.containers.list())  # those of earlier tests that are being removed
    running = threading.Thread(target=replay)
    running.start()
    until(lambda: set(other.containers.list()) - ended)
    machines.lose_second()
    running.join(120)
    [report] = found

    assert _compared(report.trajectories) == _compared(replay_all(work, runs, LocalCluster(2)).trajectories)
    assert other.containers.list(all=True), "what the lost machine was doing is still there"
    machines.second = machines.add_second()
    with RayCluster(None, print) as cluster:
        assert replay_all(work, runs, cluster).failed == []
    assert other.containers.list(all=True) == []


@pytest.mark.usefixtures("machines")
def test_the_status_of_each_machine(other_daemon: tuple[Daemon, DockerClient], base_image: str) -> None:
    other = other_daemon[1]
    other.images.get(base_image).tag("swe-srl/task", "of-the-status-test")
    tags = {name for image in other.images.list("swe-srl/task") for name in image.tags}
    images = sum(name.startswith("swe-srl/task:") for name in tags)
    with DockerSandbox.start(other, base_image), RayCluster(None, print) as cluster:
        rows = cluster.status(node_status)

    seen = [(row["CPU"], row["containers"], row["sandboxes"], row["task_images"], row["error"]) for row in rows]
    assert (4.0, 2.0, 1, images, None) in seen
    assert len(seen) == 3, "the head, and a node for each daemon"
