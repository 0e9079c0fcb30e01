"""Jobs on a Ray cluster of several nodes: each a raylet of its own on this machine, killed for real."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from working import Doubling, Dying, Holding, Refusing

from swe_srl.cluster.base import Done, Job, Needs
from swe_srl.cluster.ray import RayCluster
from swe_srl.errors import UserError

pytestmark = pytest.mark.xdist_group("ray")
_STORE = 80 * 1024**2


def jobs(count: int) -> list[Job[int]]:
    return [Job(f"job {number}", number) for number in range(count)]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_results_are_those_of_this_machine(cluster: RayCluster) -> None:
    ticks: list[None] = []
    done = list(cluster.run(Doubling(), jobs(20), on_tick=lambda: ticks.append(None)))

    assert len(ticks) == 20, "one a job"
    assert sorted((end.job.name, end.result) for end in done) == sorted((f"job {n}", 2 * n) for n in range(20))
    assert {end.error for end in done} == {None}
    assert {end.node for end in done} <= {node["NodeID"] for node in ray.nodes() if node["Resources"].get("containers")}


def test_what_work_raises_is_raised_here(cluster: RayCluster) -> None:
    with pytest.raises(ValueError, match="no 3 is taken"):
        list(cluster.run(Refusing(), jobs(10)))


def test_a_job_whose_process_is_killed_is_done_again(cluster: RayCluster, tmp_path: Path) -> None:
    done = list(cluster.run(Dying(tmp_path), jobs(3)))

    assert sorted((end.job.payload, end.result, end.error) for end in done) == [(0, 2, None), (1, 2, None), (2, 2, None)]


def test_nodes_run_as_many_as_they_declare_and_few_wait_for_them(cluster: RayCluster, tmp_path: Path) -> None:
    drawn: list[int] = []

    def drawing() -> Iterator[Job[int]]:
        for job in jobs(40):
            drawn.append(job.payload)
            yield job

    work = Holding(tmp_path)
    found: list[Done[int, int]] = []
    running = threading.Thread(target=lambda: found.extend(cluster.run(work, drawing(), Needs(cpus=1.0))))
    running.start()
    until(lambda: len(work.begun()) == 2)
    time.sleep(0.5)
    assert len(work.begun()) == 2
    assert len(drawn) == 4
    (tmp_path / "go").touch()
    running.join(60)
    assert Counter(end.result for end in found) == Counter(range(40))


def test_a_job_goes_to_the_node_that_has_its_image(cluster: RayCluster, tmp_path: Path) -> None:
    work = Holding(tmp_path)

    def at_once() -> Iterator[Job[int]]:
        yield Job("a job", 0, image="a")
        yield Job("b job", 1, image="b")
        until(lambda: len(work.begun()) == 2)
        (tmp_path / "go").touch()

    homes = {end.job.image: end.node for end in cluster.run(work, at_once())}
    assert len(set(homes.values())) == 2
    for image in "abbaab":
        until(lambda: ray.available_resources().get("containers") == 2.0)
        [end] = cluster.run(Doubling(), [Job("again", 1, image=image)])
        assert end.node == homes[image]


def test_a_need_that_no_node_meets_is_said_with_what_there_is(cluster: RayCluster) -> None:
    impatient = RayCluster(None, print, patience=0.2)
    with pytest.raises(UserError, match=r"needs 64 CPU, 1 containers: .* has .*2 CPU"):
        list(impatient.run(Doubling(), jobs(1), Needs(cpus=64.0)))


def test_a_run_that_is_left_ends_what_runs_and_every_node_cleans_up(cluster: RayCluster, tmp_path: Path) -> None:
    work = Holding(tmp_path)

    def leaving() -> Iterator[Job[int]]:
        yield from jobs(2)
        until(lambda: len(work.begun()) == 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(cluster.run(work, leaving()))
    assert (tmp_path / "aborted").exists()
    (tmp_path / "go").touch()
    assert sorted(end.result or 0 for end in cluster.run(Doubling(), jobs(2))) == [0, 2], "the nodes are free again"


def test_jobs_of_a_lost_node_are_done_again_elsewhere(nodes: Nodes, cluster: RayCluster, tmp_path: Path) -> None:
    work = Holding(tmp_path)
    found: list[Done[int, int]] = []
    running = threading.Thread(target=lambda: found.extend(cluster.run(work, jobs(4))))
    lost = nodes.add_node(num_cpus=2, resources={"containers": 1}, object_store_memory=_STORE)
    running.start()
    until(lambda: len(work.begun()) == 3)
    nodes.remove_node(lost, allow_graceful=False)
    until(lambda: len([node for node in ray.nodes() if node["Alive"]]) == 3)
    (tmp_path / "go").touch()
    running.join(90)
    assert Counter((end.result, end.error) for end in found) == Counter((n, None) for n in range(4))
