"""What becomes of replays when a cluster fails: its head, its network, a slow node, the machine that gives the jobs.

Real raylets and real containers. Whatever happens, results are those of this machine alone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from docker import DockerClient
from lacking import lacking
from machines import Apart, Machines, frozen, marked, sandboxes, there, until
from working import Holding

from swe_srl.cluster.base import Job
from swe_srl.cluster.head import watched
from swe_srl.cluster.local import LocalCluster
from swe_srl.cluster.ray import RayCluster
from swe_srl.environments.image import build_image
from swe_srl.environments.reaper import reap
from swe_srl.environments.replaying import ReplayReport, ReplayWork, replay_all
from swe_srl.environments.task import load_tasks
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.storage import write_jsonl

pytestmark = pytest.mark.xdist_group("ray")
ROOT = Path(__file__).parents[2]
NAME = "ttlbox-expiry-edge"
TASK = load_tasks([ROOT / "environments" / NAME]).tasks[NAME]
[EXPERT] = load([ROOT / f"trajectories/{NAME}.jsonl"])
GO_ON = "what was finished is kept: once the cluster is there again, give the same command again"


def runs(count: int, seconds: float) -> list[Trajectory]:
    """The expert's first steps after a sleep."""
    sleep = Action((ToolCall("bash", {"command": f"sleep {seconds}"}),))
    turns = (EXPERT.turns[0], Turn("agent", "", "x", sleep, Observation("OBSERVATION:\n", "")), *EXPERT.turns[1:7])
    return [dataclasses.replace(EXPERT, id=f"run-{number}", turns=turns) for number in range(count)]


@pytest.fixture(scope="module")
def work(client: DockerClient) -> ReplayWork:
    return ReplayWork({NAME: build_image(client, TASK).tag}, {NAME: TASK}, client=client, grade=False)


def compared(report: ReplayReport) -> list[Any]:
    assert report.failed == []
    return [
        (replay.id, replay.attempts, [(step.k, step.exact, step.similarity, step.returncode) for step in replay.steps])
        for replay in report.trajectories
    ]


def replay(folder: Path, out: Path, cluster: str, **env: str) -> subprocess.Popen[str]:
    """The command, as a person gives it."""
    write_jsonl(folder / "runs.jsonl", runs(6, 1.0))
    command = [
        sys.executable,
        "-m",
        "swe_srl.cli",
        "replay",
        str(folder / "runs.jsonl"),
        "--tasks",
        str(ROOT / "environments" / NAME),
    ]
    command += ["--out", str(out), "--cluster", cluster, "--no-tests", "--json"]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**os.environ, **env}, text=True, **piped)  # type: ignore[call-overload, no-any-return]


def finished(out: Path) -> int:
    file = out / "replay.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def rows(out: str) -> list[Any]:
    return [{key: row[key] for key in ("id", "steps", "exact")} for row in json.loads(out)["trajectories"]]


@pytest.fixture(scope="module")
def undisturbed(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the command finds on this machine alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    out, err = replay(folder, folder / "out", "local").communicate(timeout=120)
    assert len(rows(out)) == 6, err
    return rows(out)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])


def test_a_lost_head_ends_the_command_and_the_same_one_goes_on_with_another(undisturbed: list[Any], tmp_path: Path) -> None:
    port, out = free_port(), tmp_path / "out"
    first = Machines(port)
    try:
        first.add()
        process = replay(tmp_path, out, f"ray://127.0.0.1:{port}", RAY_CLIENT_RECONNECT_GRACE_PERIOD="2")
        until(lambda: finished(out) >= 1 or process.poll() is not None)
        first.head.kill_all_processes(check_alive=False, allow_graceful=False)
        _, err = process.communicate(timeout=60)
    finally:
        first.close()
    assert process.returncode == 1, err
    assert "Traceback" not in err, err
    assert err.strip().splitlines()[-1].startswith("error: the connection to the cluster is lost (")
    assert err.strip().endswith(GO_ON)
    kept = finished(out)
    assert 1 <= kept < 6

    second = Machines(port)
    try:
        second.add(2)
        found, err = replay(tmp_path, out, f"ray://127.0.0.1:{port}").communicate(timeout=90)
    finally:
        second.close()
    assert f"{kept} of 6 trajectories are replayed already" in err
    assert rows(found) == undisturbed


def test_the_command_killed_goes_on_and_its_containers_are_removed(
    client: DockerClient, undisturbed: list[Any], tmp_path: Path
) -> None:
    machines, out = Machines(), tmp_path / "out"
    try:
        machines.add(2)
        process = replay(tmp_path, out, "ray", RAY_ADDRESS=machines.nodes.address)
        until(lambda: finished(out) >= 1 and sandboxes(client, machines.mark))
        left = sandboxes(client, machines.mark)
        process.kill()
        process.communicate()
        kept = finished(out)
        assert 1 <= kept < 6
        found, err = replay(tmp_path, out, "ray", RAY_ADDRESS=machines.nodes.address).communicate(timeout=90)
        assert f"{kept} of 6 trajectories are replayed already" in err
        assert rows(found) == undisturbed
        assert there(client, left) == set()
        assert sandboxes(client, machines.mark) == set()
    finally:
        machines.close()


@pytest.fixture(scope="module")
def machines(client: DockerClient) -> Iterator[Machines]:
    made = Machines()
    here = {"env_vars": {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}}
    ray.init(address=made.nodes.address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=here)
    yield made
    made.close()
    reap(client)


@pytest.fixture
def apart(machines: Machines) -> Iterator[Apart]:
    """The only machine with sandboxes."""
    if shutil.which("ip") is None:
        lacking("iproute2 is not installed")
    try:
        made = Apart("swesrl", machines.nodes.address, machines.mark)
    except RuntimeError as error:
        lacking(f"there can be no network of its own here: {error}")
    until(lambda: any(node["Alive"] and node["NodeManagerAddress"] == "10.213.7.2" for node in ray.nodes()))
    yield made
    made.close()


class Replaying:
    """Replays on the cluster, in a thread."""

    def __init__(self, work: ReplayWork, of: list[Trajectory]) -> None:
        self.said: list[str] = []
        self.found: list[ReplayReport] = []
        self._thread = threading.Thread(target=self._run, args=(work, of))
        self._thread.start()

    def _run(self, work: ReplayWork, of: list[Trajectory]) -> None:
        with RayCluster(None, self.said.append, patience=30.0) as cluster:
            self.found.append(replay_all(work, of, cluster))

    def end(self) -> ReplayReport:
        self._thread.join(60)
        assert not self._thread.is_alive(), self.said
        return self.found[0]


def alive() -> int:
    return sum(bool(node["Alive"]) for node in ray.nodes())


def test_a_short_cut_is_bridged_and_after_a_long_one_the_job_is_done_elsewhere(
    client: DockerClient, machines: Machines, apart: Apart, work: ReplayWork
) -> None:
    short = Replaying(work, runs(1, 2.0))
    until(lambda: sandboxes(client, machines.mark))
    apart.pull_the_cable()
    time.sleep(2)
    apart.plug_it_in()
    assert compared(short.end()) == compared(replay_all(work, runs(1, 2.0), LocalCluster(1)))
    assert alive() == 2, "nothing was lost"

    long = Replaying(work, runs(1, 1.0))
    until(lambda: sandboxes(client, machines.mark))
    apart.pull_the_cable()
    until(lambda: alive() == 1)
    assert long.found == []
    other = machines.add()
    assert compared(long.end()) == compared(replay_all(work, runs(1, 1.0), LocalCluster(1)))
    apart.plug_it_in()
    until(lambda: not apart.processes())  # what is cut off for long is not taken back
    machines.nodes.remove_node(other, allow_graceful=False)


def test_a_node_that_stands_still_for_a_moment_loses_nothing_and_one_that_stays_so_loses_its_jobs(
    client: DockerClient, machines: Machines, work: ReplayWork
) -> None:
    slow = machines.add()
    running = Replaying(work, runs(1, 1.0))
    until(lambda: sandboxes(client, machines.mark))
    with frozen(list(map(int, marked(machines.mark)))):
        time.sleep(2)
    assert compared(running.end()) == compared(replay_all(work, runs(1, 1.0), LocalCluster(1)))

    running = Replaying(work, runs(1, 1.0))
    until(lambda: sandboxes(client, machines.mark))
    with frozen(list(map(int, marked(machines.mark)))):
        until(lambda: alive() == 1)
        other = machines.add()
        assert compared(running.end()) == compared(replay_all(work, runs(1, 1.0), LocalCluster(1)))
    for node in (slow, other):
        machines.nodes.remove_node(node, allow_graceful=False)


def test_a_run_in_which_nothing_ends_says_so_and_is_given_up(machines: Machines, tmp_path: Path) -> None:
    node = machines.add()
    until(lambda: alive() == 2)
    said: list[str] = []
    work = Holding(tmp_path)
    with pytest.raises(UserError) as given_up, RayCluster(None, said.append, patience=1.0, limit=4.0) as cluster:
        list(cluster.run(work, [Job("job 0", 0), Job("job 1", 1)]))
    assert str(given_up.value) == f"no job has ended for 4 s; 2 jobs on 2 nodes: job 0, job 1; {GO_ON}"
    assert said[0].startswith("waiting for 2 jobs on 2 nodes: job 0, job 1; none has ended for ")
    assert (tmp_path / "aborted").exists(), "what ran is ended"
    machines.nodes.remove_node(node, allow_graceful=False)


def test_a_head_that_is_silent_and_comes_back_is_told() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with watched(f"ray://127.0.0.1:{port}", said.append, pace=0.05):
            time.sleep(0.3)
            assert said == []
            server.close()
            until(lambda: len(said) == 1)
            with socket.create_server(("127.0.0.1", port)):
                until(lambda: len(said) == 2)
    assert said == [
        f"the head of the cluster at 127.0.0.1:{port} does not answer; if it stays away Ray ends this; {GO_ON}",
        f"the head of the cluster at 127.0.0.1:{port} answers again",
    ]
