"""What a cluster gives and costs: replays and rollouts on several nodes, a job's overhead, the driver's memory, a plan.

Nodes are simulated: a raylet each, all on this machine, its cores and its one Docker daemon. So `throughput` shows what Ray
takes of one machine, not what several machines give. A node takes one sandbox at a time; the row `local` beside it has as many
threads as there are nodes.

`throughput` is of replays of the shipped trajectories and of real ones (`--data`), and of rollouts in which
recorded actions are the policy's, each with its tests.

`overhead`: what a job takes longer on a cluster of one node than in a thread of this process, one job at a time, with all that
comes with it (handing over, asking for the nodes, the way of the result); what the work itself takes is left out on both sides.
The two take turns, so that what else the machine does meets both.

`memory`: what this process holds after so many jobs that do nothing, each with 20 kB to them and 20 kB back.

`plan`: `swe-srl train RECIPE --dry-run` for 1, 8 and 64 devices, as the shipped unit costs have it.

    python benchmarks/scale.py --quick --json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fidelity
from docker import DockerClient
from process import machine, memory
from tables import print_table, say

from swe_srl.cluster.base import Cluster, Job
from swe_srl.cluster.local import LocalCluster
from swe_srl.cluster.ray import CONTAINERS, RayCluster
from swe_srl.environments.image import build_images
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.replaying import ReplayWork
from swe_srl.environments.task import Task, load_tasks
from swe_srl.planning.costs import load_costs
from swe_srl.planning.plan import SIZES, make_plan
from swe_srl.recipes import load_recipe
from swe_srl.rollouts.agent import AgentConfig
from swe_srl.rollouts.policies import ScriptedPolicy
from swe_srl.rollouts.run import Job as Rollout
from swe_srl.rollouts.run import RolloutOptions, RolloutWork
from swe_srl.rollouts.starts import StartRule, starts
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SWE_SRL_DATA", ROOT.parent / "shared" / "data"))
PAYLOAD = 20_000
LOTS = SHIPPED_REPLAYS, SHIPPED_ROLLOUTS, REAL_REPLAYS = "shipped replays", "shipped rollouts", "real replays"
_STORE = 200 * 1024**2


@dataclass(frozen=True)
class Nothing:
    """Gives back what it is given."""

    tasks: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, payload: bytes, tick: Callable[[], None]) -> bytes:
        return bytes(payload)

    def abort(self) -> None: ...


@dataclass(frozen=True)
class Timed:
    """Another work's result, and the seconds that it took where it ran."""

    work: Any

    def __call__(self, payload: Any, tick: Callable[[], None]) -> tuple[Any, float]:
        begun = time.perf_counter()
        return self.work(payload, tick), time.perf_counter() - begun

    def abort(self) -> None:
        self.work.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=10_000, help="that do nothing, of `memory`; at least 1,000")
    parser.add_argument("--pairs", type=int, default=10, help="replays of `overhead`, a row each")
    parser.add_argument("--recipe", default=str(ROOT / "recipes" / "srl-paper-7b.toml"), help="of the plan")
    parser.add_argument("--data", type=Path, default=DATA, help="real runs and their tasks, replayed beside those that ship")
    parser.add_argument("--real", type=int, help="how many of the real runs; all by default")
    parser.add_argument("--work", nargs="+", choices=LOTS, default=list(LOTS), help="of `throughput`")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="four shipped trajectories, no real runs, 3 pairs")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    options = parser.parse_args()
    if options.quick:
        options.pairs = 3
    report: dict[str, Any] = {"machine": machine()}
    for name in options.only:
        report[name] = []
        for row in SECTIONS[name](options):
            report[name].append(row)
            say(json.dumps({name: row}))
    report["load after"] = round(os.getloadavg()[0], 2)
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for name in options.only:
        print_table(name, report[name])


@contextmanager
def nodes(count: int) -> Iterator[RayCluster]:
    """A head that takes no jobs, and so many nodes of one sandbox each; each has done a job already."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes()
    made.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False)
    for _ in range(count):
        made.add_node(num_cpus=2, resources={CONTAINERS: 1}, object_store_memory=_STORE)
    try:
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        with RayCluster(None, say) as cluster:
            for _ in cluster.run(Nothing(), _jobs(4 * count)):
                pass
            yield cluster
    finally:
        ray.shutdown()
        made.shutdown()


def throughput(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each kind of work, place and number of nodes."""
    for lot in _lots(options):
        if lot.name not in options.work:
            continue
        for count in options.nodes:
            yield {"work": lot.name, **_timed("local", count, LocalCluster(count), lot)}
            with nodes(count) as cluster:
                yield {"work": lot.name, **_timed("ray", count, cluster, lot)}


def overhead(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for jobs that do nothing, and one for replays."""
    shipped = next(_lots(options))
    here = LocalCluster(1)
    with nodes(1) as there:
        large = Nothing({str(number): os.urandom(5_000).hex() for number in range(5_000)})
        replays = (shipped.jobs * options.pairs)[: options.pairs]
        for name, of, lots in (
            ("nothing", Nothing(), [list(_jobs(1))] * 100),
            ("nothing, many tasks", large, [list(_jobs(100))] * 3),
            ("replay", shipped.work, [[job] for job in replays]),
        ):
            _beside(of, lots[0][:1], there)  # what comes but once in a process
            yield _overhead(name, [(_beside(of, lot, here), _beside(of, lot, there)) for lot in lots])


def memory_of_jobs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row after 1,000 jobs, and one after all."""
    with nodes(2) as cluster:
        begun = time.perf_counter()
        for number, done in enumerate(cluster.run(Nothing(), _jobs(options.jobs)), 1):
            assert done.error is None
            if number in (1_000, options.jobs):
                gc.collect()
                yield {
                    "jobs": number,
                    "resident MB": round(memory("VmRSS") / 1e6, 1),
                    "ms a job": round(1e3 * (time.perf_counter() - begun) / number, 2),
                }


def plan(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each number of devices: days by phase."""
    made = make_plan(load_recipe(options.recipe), load_costs(), SIZES)
    for size in made.sizes:
        yield {
            "devices": size.devices,
            "device": made.device,
            "unit costs": "measured" if made.measured else "estimated",
            "GiB on each": round(size.peak_gib),
            "fits": size.fits,
            **{f"{phase} d": round(seconds / 86_400, 2) for phase, seconds in size.seconds.items()},
            "all d": round(size.total_seconds / 86_400, 2),
            "device hours": round(size.device_hours),
            "bottleneck": size.bottleneck,
        }


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[dict[str, Any]]]] = {
    "plan": plan,
    "memory": memory_of_jobs,
    "overhead": overhead,
    "throughput": throughput,
}


@dataclass(frozen=True)
class Lot:
    """Jobs of one kind."""

    name: str
    work: Any
    jobs: list[Job[Any]]
    went_well: Callable[[Any], bool]
    """Whether a result is as it should be."""


def _lots(options: argparse.Namespace) -> Iterator[Lot]:
    """What is replayed and rolled out. Images are built before."""
    shipped = load([ROOT / "trajectories"])
    shipped = shipped[::3] if options.quick else shipped
    yield _replays(SHIPPED_REPLAYS, [ROOT / "environments"], shipped)
    yield _rollouts(SHIPPED_ROLLOUTS, [ROOT / "environments"], shipped)
    if options.quick or not (options.data / "tasks.jsonl").is_file():
        return
    changed = fidelity.changed_tasks(options.data, None)
    files = [options.data / "trajectories" / run["file"] for task in changed for run in task["trajectories"]]
    with tempfile.TemporaryDirectory() as folder:
        fidelity.write_tasks(changed, Path(folder) / "tasks.jsonl")
        yield _replays(REAL_REPLAYS, [Path(folder) / "tasks.jsonl"], load(files)[: options.real])


def _replays(name: str, tasks: Sequence[Path], runs: list[Trajectory]) -> Lot:
    client, needed, images = _prepared(tasks, runs)
    work = ReplayWork(images, needed, client=client)
    jobs: list[Job[Any]] = [Job(run.id, run, images[run.task_id]) for run in runs if run.task_id in images]
    return Lot(name, work, jobs, lambda done: done.replay.error is None)


def _rollouts(name: str, tasks: Sequence[Path], experts: list[Trajectory]) -> Lot:
    client, needed, images = _prepared(tasks, experts)
    begin, _ = starts(StartRule("step", 0), needed, experts, None, None)
    work = RolloutWork(ScriptedPolicy(experts), RolloutOptions(AgentConfig(max_steps=100)), client=client)
    jobs: list[Job[Any]] = []
    for start in begin:
        task = needed[start.trajectory.task_id]
        jobs.append(Job(task.id, Rollout(task.id, task, start, 0, images[task.id], key=""), images[task.id]))
    return Lot(name, work, jobs, lambda done: done[0].resolved is True)


def _prepared(tasks: Sequence[Path], runs: list[Trajectory]) -> tuple[DockerClient, dict[str, Task], dict[str, str]]:
    """A client, the tasks of these runs, and their images."""
    client = connect_and_reap()
    known = load_tasks(tasks).tasks
    needed = {run.task_id: known[run.task_id] for run in runs if run.task_id in known}
    built, failed = build_images(client, list(needed.values()), say)
    if failed:
        raise SystemExit(f"images were not built: {failed}")
    return client, needed, {name: image.tag for name, image in built.items()}


def _timed(where: str, count: int, cluster: Cluster, lot: Lot) -> dict[str, Any]:
    if where == "ray":  # a process of each node has asked its daemon once
        _ended(lot, lot.jobs[:count], cluster)
    begun = time.perf_counter()
    _ended(lot, lot.jobs, cluster)
    seconds = time.perf_counter() - begun
    return {
        "where": where,
        "nodes": count,
        "jobs": len(lot.jobs),
        "seconds": round(seconds, 1),
        "jobs an hour": round(3600 * len(lot.jobs) / seconds),
    }


def _ended(lot: Lot, jobs: list[Job[Any]], cluster: Cluster) -> None:
    bad = [done.job.name for done in cluster.run(lot.work, jobs) if done.error or not lot.went_well(done.result)]
    if bad:
        raise SystemExit(f"{lot.name}: {bad} did not end as they should")


def _overhead(job: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    differences = [1e3 * (there - here) for here, there in pairs]
    return {
        "job": job,
        "runs": len(pairs),
        "local ms": round(1e3 * statistics.median(here for here, _ in pairs), 1),
        "ray ms": round(1e3 * statistics.median(there for _, there in pairs), 1),
        "overhead ms, median": round(statistics.median(differences), 1),
        "least": round(min(differences), 1),
        "most": round(max(differences), 1),
    }


def _beside(work: Any, jobs: list[Job[Any]], cluster: Cluster) -> float:
    """Seconds a job beside the work itself; jobs one at a time."""
    begun = time.perf_counter()
    ended = list(cluster.run(Timed(work), jobs))
    seconds = time.perf_counter() - begun
    return (seconds - sum(done.result[1] for done in ended if done.result is not None)) / len(jobs)


def _jobs(count: int) -> Iterator[Job[bytes]]:
    return (Job(f"job {number}", os.urandom(PAYLOAD)) for number in range(count))


if __name__ == "__main__":
    main()
