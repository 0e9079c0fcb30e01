"""Objects that live on a node of a Ray cluster; their processes and nodes are killed for real."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes
from working import Asking, Counting

from swe_srl.cluster.base import Job
from swe_srl.cluster.placing import Placed, PlaceLost
from swe_srl.cluster.ray import RayCluster
from swe_srl.errors import UserError

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def placed(nodes: Nodes) -> Iterator[Placed]:
    """A count that begins at 5, of two calls at a time."""
    made = RayCluster(None, print, patience=60.0).place(partial(Counting, 5), cpus=0.0, concurrency=2, seconds=60.0)
    yield made
    made.close()


def test_it_keeps_its_state_from_call_to_call_in_a_process_of_its_own(placed: Placed) -> None:
    before = placed.call("add", 0)

    assert [placed.call("add", 2), placed.call("add", 3, twice=True)] == [before + 2, before + 8]
    assert placed.call("process") != os.getpid()
    assert placed.node in {node["NodeID"] for node in ray.nodes()}


def test_jobs_on_other_nodes_call_it(cluster: RayCluster, placed: Placed) -> None:
    before = placed.call("add", 0)
    done = list(cluster.run(Asking(placed), [Job(f"add {n}", n) for n in (1, 2, 3)]))

    assert max(end.result or 0 for end in done) == placed.call("add", 0) == before + 6
    assert {end.node for end in done} - {placed.node}


def test_it_can_be_bound_to_one_node(nodes: Nodes, cluster: RayCluster) -> None:
    for there in [str(node["NodeID"]) for node in ray.nodes()]:
        made = cluster.place(Counting, cpus=0.0, node=there, only_there=True)
        assert made.node == there
        made.close()
    with pytest.raises(PlaceLost, match="Counting"):
        cluster.place(Counting, cpus=0.0, node="ab" * 28, only_there=True)


def test_what_it_raises_is_raised_here_and_it_goes_on(placed: Placed) -> None:
    before = placed.call("add", 0)

    with pytest.raises(ValueError, match=r"^no 3 is taken$"):
        placed.call("refuse", "3")
    assert placed.call("add", 1) == before + 1


def test_a_call_that_takes_longer_than_it_may_says_what_was_waited_for_and_holds_up_no_other(placed: Placed) -> None:
    with pytest.raises(TimeoutError, match=rf"^waited 0\.2 s for Counting\.sleep on node {placed.node[:8]}$"):
        placed.call("sleep", 20, timeout=0.2)
    assert placed.call("add", 1, timeout=15) > 5


def test_what_making_it_raises_is_raised_here_and_leaves_no_process(cluster: RayCluster) -> None:
    free = ray.available_resources()["CPU"]
    with pytest.raises(ValueError, match="invalid literal"):
        cluster.place(partial(int, "x"))

    end = time.monotonic() + 30
    while ray.available_resources()["CPU"] != free:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_closing_lets_it_close_itself_and_ends_its_process(cluster: RayCluster, tmp_path: Path) -> None:
    placed = cluster.place(partial(Counting, 0, tmp_path / "closed"))
    placed.close()

    assert (tmp_path / "closed").exists()
    with pytest.raises(PlaceLost, match=r"^Counting\.add on node .*: its process or its node is gone"):
        placed.call("add", 1)
    placed.close()


def test_a_killed_process_is_lost_to_whoever_calls_or_waits(cluster: RayCluster) -> None:
    placed = cluster.place(Counting, concurrency=2)
    process, lost = placed.call("process"), []

    def wait() -> None:
        try:
            placed.call("sleep", 60)
        except PlaceLost as error:
            lost.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    os.kill(process, signal.SIGKILL)
    waiting.join(30)

    assert len(lost) == 1
    with pytest.raises(PlaceLost):
        placed.call("add", 1)
    assert str(pickle.loads(pickle.dumps(lost[0]))) == str(lost[0])


def test_what_may_be_made_again_is_and_the_call_under_way_with_it(cluster: RayCluster, tmp_path: Path) -> None:
    placed = cluster.place(partial(Counting, 5), restarts=1)
    placed.call("add", 1)

    assert placed.call("kill_once", tmp_path / "killed", timeout=60) == 5, "what it held is gone"
    placed.close()


def test_what_has_no_room_says_so_and_what_is_placed_on_a_lost_node_is_lost(nodes: Nodes, cluster: RayCluster) -> None:
    impatient = RayCluster(None, print, patience=0.5)
    with pytest.raises(UserError, match=r"needs 1 CPU, 3 GPU: .* has .*2 CPU"):
        impatient.place(Counting, gpus=3.0)
    doomed = nodes.add_node(num_cpus=3, object_store_memory=80 * 1024**2)
    placed = cluster.place(Counting, cpus=3.0)
    assert placed.node == doomed.node_id
    with pytest.raises(UserError, match=r"^Counting needs 0 GPU and 3 CPU, which no node had free within 0\.5 s$"):
        impatient.place(Counting, cpus=3.0)

    nodes.remove_node(doomed, allow_graceful=False)
    with pytest.raises(PlaceLost, match=r"^Counting\.sleep on node "):
        placed.call("sleep", 60)
