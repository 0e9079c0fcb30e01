"""A Ray cluster of several nodes: each a raylet of its own on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from docker import DockerClient
from ray.cluster_utils import Cluster as Nodes
from second_daemon import Daemon
from two_machines import TwoMachines

from swe_srl.cluster.ray import RayCluster

_STORE = 80 * 1024**2


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A head that takes no jobs, and two nodes of two CPUs that take one container at a time."""
    made = Nodes()
    made.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False)
    for _ in range(2):
        made.add_node(num_cpus=2, resources={"containers": 1}, object_store_memory=_STORE)
    ray.init(
        address=made.address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
    )
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def cluster(nodes: Nodes) -> Iterator[RayCluster]:
    with RayCluster(None, print, patience=20.0) as made:
        yield made


@pytest.fixture(scope="module")
def machines(other_daemon: tuple[Daemon, DockerClient], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoMachines]:
    made = TwoMachines(other_daemon[0], tmp_path_factory.mktemp("cache"))
    yield made
    ray.shutdown()
    made.nodes.shutdown()
