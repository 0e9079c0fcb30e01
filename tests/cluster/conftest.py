"""A Ray cluster of several nodes: each a raylet of its own on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as Nodes

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
