"""What a cluster tells of itself: Prometheus' port, and the board of runs."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import requests
from docker import DockerClient
from lacking import lacking
from machines import STORE, until
from ray.cluster_utils import Cluster as Nodes
from working import Holding, Refusing

from swe_srl.cluster.base import Job
from swe_srl.cluster.ray import RayCluster
from swe_srl.environments.image import build_image
from swe_srl.environments.replaying import ReplayWork, replay_all
from swe_srl.environments.task import load_tasks
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Turn

pytestmark = pytest.mark.xdist_group("ray")
ROOT = Path(__file__).parents[2]
NAME = "ttlbox-expiry-edge"


@pytest.fixture(scope="module")
def node() -> Iterator[None]:
    made = Nodes()
    made.add_node(num_cpus=4, resources={"containers": 2}, object_store_memory=STORE, include_dashboard=False)
    here = {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}}
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR", runtime_env=here)
    yield
    ray.shutdown()
    made.shutdown()


def scraped() -> dict[str, float]:
    """Our series on the node's metrics port, processes added up: by name and our labels."""
    [there] = ray.nodes()
    text = requests.get(f"http://{there['NodeManagerAddress']}:{there['MetricsExportPort']}/metrics", timeout=10).text
    found: dict[str, float] = {}
    for name, labels, value in re.findall(r"^ray_(swe_srl_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        ours = re.findall(r'(work|outcome)="(\w+)"', labels)
        key = " ".join([name, *(value for _, value in sorted(ours, reverse=True))])
        found[key] = found.get(key, 0.0) + float(value)
    return found


@pytest.mark.usefixtures("node")
def test_prometheus_finds_jobs_their_seconds_and_sandboxes(client: DockerClient, tmp_path: Path) -> None:
    if importlib.util.find_spec("opencensus") is None:
        lacking("Ray's agent is not whole: pip install 'swe-srl[cluster]'")
    task = load_tasks([ROOT / "environments" / NAME]).tasks[NAME]
    work = ReplayWork({NAME: build_image(client, task).tag}, {NAME: task}, client=client, grade=False)
    [expert] = load([ROOT / f"trajectories/{NAME}.jsonl"])
    # Ray tells its figures every few seconds: the sandbox has to be there when it does.
    slow = Turn("agent", "", "x", Action((ToolCall("bash", {"command": "sleep 12"}),)), Observation("OBSERVATION:\n", ""))
    slowly = dataclasses.replace(expert, turns=(expert.turns[0], slow, *expert.turns[1:]))
    with RayCluster(None, print) as cluster:
        running = threading.Thread(target=lambda: replay_all(work, [slowly], cluster))
        running.start()
        until(lambda: scraped().get("swe_srl_sandboxes") == 1)
        running.join()
        with pytest.raises(ValueError, match="no 3 is taken"):
            list(cluster.run(Refusing(), [Job("1", 1), Job("3", 3)]))
    expected = {
        "swe_srl_sandboxes": 0,
        "swe_srl_jobs_running ReplayWork": 0,
        "swe_srl_jobs_total ReplayWork done": 1,
        "swe_srl_job_seconds_count ReplayWork": 1,
        "swe_srl_jobs_total Refusing done": 1,
        "swe_srl_jobs_total Refusing raised": 1,
        "swe_srl_job_seconds_count Refusing": 2,
    }
    until(lambda: expected.items() <= scraped().items(), 30)


@pytest.mark.usefixtures("node")
def test_the_board_shows_runs_while_they_have_jobs(tmp_path: Path) -> None:
    with RayCluster(None, print, patience=1.0) as cluster:
        before = cluster.free()
        running = threading.Thread(target=lambda: list(cluster.run(Holding(tmp_path), (Job(str(n), n) for n in range(9)))))
        running.start()
        until(lambda: len(cluster.runs()) == 1 and cluster.runs()[0]["waiting"] == 2 and cluster.free().get("containers") == 0)
        [row] = cluster.runs()
        (tmp_path / "go").touch()
        running.join()
        assert cluster.runs() == []
        until(lambda: cluster.free() == before)
    assert {key: row[key] for key in ("work", "running", "waiting", "done", "lost", "jobs_per_minute")} == {
        "work": "Holding",
        "running": 2,
        "waiting": 2,
        "done": 0,
        "lost": 0,
        "jobs_per_minute": 0.0,
    }
