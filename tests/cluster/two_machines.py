"""A cluster of two machines: this one's daemon, and a second daemon that stands for another machine's."""

from __future__ import annotations

import logging
from pathlib import Path

import ray
from ray.cluster_utils import Cluster as Nodes
from second_daemon import Daemon

_STORE = 80 * 1024**2


class TwoMachines:
    """A head without sandboxes and a node for each daemon, with room for two containers each."""

    def __init__(self, other: Daemon, folder: Path) -> None:
        self.other, self.nodes, self._folder = other, Nodes(), folder
        self.nodes.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False)
        self._node({})
        self.second = self.add_second()
        ray.init(address=self.nodes.address, log_to_driver=False, logging_level=logging.ERROR)

    def add_second(self) -> object:
        return self._node({"DOCKER_HOST": self.other.url, "SWE_SRL_CACHE": str(self._folder)})

    def _node(self, env: dict[str, str]) -> object:
        return self.nodes.add_node(num_cpus=4, resources={"containers": 2}, object_store_memory=_STORE, env_vars=env)
