"""A cluster of two machines: this one's daemon, and a second daemon that stands for another machine's."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
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

    def add_second(self) -> Any:
        return self._node({"DOCKER_HOST": self.other.url, "SWE_SRL_CACHE": str(self._folder)})

    def lose_second(self) -> None:
        """All its processes end at once, as those of a machine without power; its daemon and containers stay."""
        raylet = self.second.all_processes["raylet"][0].process.pid
        processes = [psutil.Process(raylet), *psutil.Process(raylet).children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        self.nodes.remove_node(self.second, allow_graceful=False)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _node(self, env: dict[str, str]) -> Any:
        return self.nodes.add_node(num_cpus=4, resources={"containers": 2}, object_store_memory=_STORE, env_vars=env)
