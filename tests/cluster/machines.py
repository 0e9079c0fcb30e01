"""Machines for the tests of clusters: a raylet each on this one, in a network of its own where it is to be cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from docker import DockerClient
from ray.cluster_utils import Cluster as Nodes

from swe_srl.environments.runs import RUN_LABEL

STORE = 80 * 1024**2
MARK = "SWE_SRL_TEST_MACHINE"
"""An environment variable of everything that a machine runs."""
_QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 8,
}
"""A node that is silent for some 8 seconds counts as lost; with Ray's own numbers it takes up to a minute."""


def until(true: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


class Machines:
    """A head without sandboxes, and nodes that are added."""

    def __init__(self, client_port: int | None = None) -> None:
        self.mark = uuid.uuid4().hex
        self.nodes = Nodes()
        port = {} if client_port is None else {"ray_client_server_port": client_port}
        self.head = self.nodes.add_node(
            num_cpus=0, object_store_memory=STORE, include_dashboard=False, _system_config=_QUICK, **port
        )

    def add(self, containers: int = 1) -> Any:
        return self.nodes.add_node(
            num_cpus=4, resources={"containers": containers}, object_store_memory=STORE, env_vars={MARK: self.mark}
        )

    def close(self) -> None:
        ray.shutdown()
        self.nodes.shutdown()


class Apart:
    """A machine behind a cable that can be pulled out."""

    def __init__(self, name: str, head: str, mark: str, containers: int = 1) -> None:
        """Raises RuntimeError where there can be no such network here."""
        self.name, self._host = name, f"{name}h"
        try:
            _ip("netns", "add", name)
            _ip("link", "add", self._host, "type", "veth", "peer", "name", f"{name}n", "netns", name)
            _ip("addr", "add", "10.213.7.1/30", "dev", self._host)
            _ip("link", "set", self._host, "up")
            for words in (["addr", "add", "10.213.7.2/30", "dev", f"{name}n"], ["link", "set", f"{name}n", "up"]):
                _ip("-n", name, *words)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", "10.213.7.1")
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise RuntimeError(getattr(error, "stderr", None) or str(error)) from error
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--address", head, "--node-ip-address", "10.213.7.2", "--num-cpus", "4", "--disable-usage-stats"]
        command += ["--resources", json.dumps({"containers": containers}), "--object-store-memory", str(STORE)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, MARK: mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def pull_the_cable(self) -> None:
        _ip("link", "set", self._host, "down")

    def plug_it_in(self) -> None:
        _ip("link", "set", self._host, "up")

    def processes(self) -> list[int]:
        return [int(pid) for pid in _ip("netns", "pids", self.name).split()]

    def close(self) -> None:
        for _ in range(3):
            for pid in subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, check=False).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        if hasattr(self, "process"):
            self.process.wait()
        subprocess.run(["ip", "link", "del", self._host], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


def marked(mark: str) -> set[str]:
    """Ids of processes of machines that carry a mark."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(folder.name)
        except OSError:
            continue
    return found


def sandboxes(client: DockerClient, mark: str) -> set[str]:
    """Ids of the containers that processes of marked machines have made."""
    processes = marked(mark)
    made = client.containers.list(all=True, filters={"label": RUN_LABEL}, sparse=True)
    return {str(one.id) for one in made if one.attrs["Labels"][RUN_LABEL].partition(".")[0] in processes}


def there(client: DockerClient, ids: set[str]) -> set[str]:
    """Which of these containers there are still."""
    return ids & {str(one.id) for one in client.containers.list(all=True, sparse=True)}


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Processes that do nothing for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, check=True, text=True).stdout
