"""What a command, a state and a replay cost: our held-open shell beside `docker exec` and two peers, a fork beside
re-execution, real runs with one and two workers.

Each figure is measured here and now, in real containers of one image; nothing is taken from elsewhere. A command's overhead is
its median time seen from the host less the median time of the same command run inside by a loop. Peers are measured where
`--peers` names a Python that has them (swe-rex, mini-swe-agent) and are said to be missing otherwise.

    python benchmarks/environments.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import docker
import fidelity
from tables import print_table, say

from swe_srl.environments.base_image import BASE_IMAGES, ensure_base_image
from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.exec import run_in
from swe_srl.environments.image import build_image
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.replay import run_action
from swe_srl.environments.snapshots import FILE as SNAPSHOT_FILE
from swe_srl.environments.snapshots import SnapshotMap, find_snapshot, read_map
from swe_srl.environments.task import load_tasks, task_from_row
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.importing import Found, import_trajectories
from swe_srl.trajectories.sources import iter_sources

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SWE_SRL_DATA", ROOT.parent / "shared" / "data"))
QUICK_TASKS = ("pytest-dev__pytest-10081", "pytest-dev__pytest-5262")
COMMAND = "true"
_INSIDE = f"""
import subprocess, time
for _ in range(%d):
    begun = time.perf_counter()
    subprocess.run(["bash", "-c", {COMMAND!r}])
    print(time.perf_counter() - begun)
"""
_MINI_SWE_AGENT = f"""
import json, sys, time
from minisweagent.environments.docker import DockerEnvironment
env, times = DockerEnvironment(image=sys.argv[1], cwd="/"), []
for _ in range(int(sys.argv[2])):
    begun = time.perf_counter()
    assert env.execute({{"command": {COMMAND!r}}})["returncode"] == 0
    times.append(time.perf_counter() - begun)
env.cleanup()
json.dump(times, open(sys.argv[3], "w"))
"""
_SWE_REX = f"""
import asyncio, json, sys, time
from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import BashAction, Command, CreateBashSessionRequest
async def main():
    deployment, times = DockerDeployment(image=sys.argv[1], pull="never"), {{"session": [], "fresh": []}}
    await deployment.start()
    runtime = deployment.runtime
    await runtime.create_session(CreateBashSessionRequest())
    for _ in range(int(sys.argv[2])):
        begun = time.perf_counter()
        assert (await runtime.run_in_session(BashAction(command={COMMAND!r}))).exit_code == 0
        times["session"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        assert (await runtime.execute(Command(command=["bash", "-c", {COMMAND!r}]))).exit_code == 0
        times["fresh"].append(time.perf_counter() - begun)
    json.dump(times, open(sys.argv[3], "w"))
    await deployment.stop()
asyncio.run(main())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="commands of each kind, at least 10")
    parser.add_argument("--forks", type=int, default=10, help="forks, and re-executions of a prefix, of each step")
    parser.add_argument("--quick", action="store_true", help="20 commands, 3 forks")
    parser.add_argument("--peers", type=Path, help="a Python with swe-rex 1.4 and mini-swe-agent 2")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--data", type=Path, default=DATA, help="real runs and their tasks, for the replays")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.forks = 20, 3
    client = connect_and_reap()
    image = BASE_IMAGES["py311"].tag
    ensure_base_image(client, image, say)
    results = {
        "commands": list(commands(client, image, options.runs, options.peers)),
        "states": list(states(client, options.forks)),
        "replays": list(replays(client, options.data, QUICK_TASKS if options.quick else None)),
    }
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print_table(title, rows)


def commands(client: docker.DockerClient, image: str, runs: int, peers: Path | None) -> Iterator[dict[str, Any]]:
    """One row a way of running a command: medians in milliseconds."""
    with DockerSandbox.start(client, image) as sandbox:
        sandbox.write_file("/tmp/inside.py", (_INSIDE % (runs // 10)).encode())
        argv = ["bash", "-c", COMMAND]
        ways: dict[str, Callable[[], object]] = {
            "ours, fresh bash": lambda: sandbox.execute(COMMAND, timeout=60),
            "ours, session": lambda: sandbox.execute(COMMAND, timeout=60, session=True),
            "docker exec, API": lambda: run_in(sandbox.container, argv),
            "docker exec, command line": lambda: subprocess.run(
                ["docker", "exec", str(sandbox.container.id), *argv], check=True
            ),
        }
        if not shutil.which("docker"):
            del ways["docker exec, command line"]
        inside: list[float] = []
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(runs):  # in turns, so that a busy moment of the machine hits all alike
            if number % (runs // 10) == 0:
                inside += map(float, sandbox.execute("python3 /tmp/inside.py", timeout=600).output.split())
            for name, way in ways.items():
                times[name].append(_seconds(way))
        own = statistics.median(inside)
        yield _row("inside the container", inside, own)
        for name, taken in times.items():
            yield _row(name, taken, own)
    yield from _peer("mini-swe-agent, Docker", peers, _MINI_SWE_AGENT, image, runs, own)
    yield from _peer("swe-rex, Docker", peers, _SWE_REX, _swe_rex_image(client) if peers else "", runs, own)


def states(client: docker.DockerClient, forks: int) -> Iterator[dict[str, Any]]:
    """The state before some steps of a shipped trajectory: seconds to have it and run a first command there."""
    tasks = load_tasks([ROOT / "environments"]).tasks
    [found] = import_trajectories(iter_sources([str(ROOT / "trajectories" / "ttlbox-expiry-edge.jsonl")]))
    assert isinstance(found, Found)
    trajectory = found.trajectory
    image = build_image(client, tasks[trajectory.task_id], say).tag
    scaffold, steps = get_scaffold(trajectory.scaffold), list(trajectory.steps())

    with tempfile.TemporaryDirectory() as folder:
        snapshots = SnapshotMap(client, Path(folder), "changed")
        taken = []
        try:
            with DockerSandbox.start(client, image) as sandbox:
                for step in steps:
                    taken.append(_seconds(lambda k=step.k: snapshots.keep(sandbox, trajectory.id, k)))
                    run_action(sandbox, scaffold, step.action, trajectory)

            def fork(k: int) -> None:
                with DockerSandbox.start(client, find_snapshot(Path(folder), f"{trajectory.id}@{k}")) as sandbox:
                    sandbox.execute(COMMAND, timeout=60, session=True)
                    ready.append(time.perf_counter())

            def execute_again(k: int) -> None:
                with DockerSandbox.start(client, image) as sandbox:
                    for step in steps[:k]:
                        run_action(sandbox, scaffold, step.action, trajectory)
                    sandbox.execute(COMMAND, timeout=60, session=True)
                    ready.append(time.perf_counter())

            for k in (0, len(steps) // 2, len(steps) - 1):
                row: dict[str, Any] = {"trajectory": trajectory.id, "k": k, "snapshot s": round(statistics.median(taken), 3)}
                for name, way in (("fork s", fork), ("re-execution s", execute_again)):
                    times = []
                    for _ in range(forks):
                        ready: list[float] = []
                        begun = time.perf_counter()
                        way(k)
                        times.append(ready[0] - begun)  # removing the container is not part of having the state
                    row[name] = round(statistics.median(times), 3)
                yield row
        finally:
            SnapshotMap(client, Path(folder), "changed")  # a new map takes away the images of the former


def replays(client: docker.DockerClient, data: Path, only: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """Every real run that has a task, by `swe-srl replay` in a process of its own: one row a way.

    `in commands` is the share of the sandboxes' time (from start to the last step) that the commands themselves took,
    `snapshots kB` what the kept states add to the tasks' images.
    """
    if not (data / "tasks.jsonl").is_file():
        yield {"replays": "missing", "reason": f"no tasks.jsonl in {data}"}
        return
    changed = fidelity.changed_tasks(data, only)
    files = [str(data / "trajectories" / run["file"]) for task in changed for run in task["trajectories"]]
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks.jsonl"
        fidelity.write_tasks(changed, tasks)
        for task in load_tasks([tasks]).tasks.values():
            build_image(client, task, say)  # building is not part of replaying
        for workers, snapshots in ((1, "none"), (2, "none"), (2, "changed")):
            out = Path(folder) / f"{workers}-{snapshots}"
            argv = [sys.executable, "-m", "swe_srl.cli", "replay", *files, "--tasks", str(tasks), "--no-tests"]
            argv += ["--out", str(out), "--workers", str(workers), "--snapshot", snapshots]
            begun = time.perf_counter()
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begun
            done = [json.loads(line) for line in (out / "replay.jsonl").read_text(encoding="utf-8").splitlines()]
            commands = sum(step["seconds"] for replay in done for step in replay["steps"])
            yield {
                "workers": workers,
                "snapshots": snapshots,
                "trajectories": len(done),
                "steps": sum(len(replay["steps"]) for replay in done),
                "seconds": round(seconds, 1),
                "in commands": round(commands / sum(replay["seconds"] for replay in done), 3),
                "peak MB": round(usage.ru_maxrss / 1024),
                "snapshots kB": round(_snapshot_bytes(client, out) / 1e3),
                "status": os.waitstatus_to_exitcode(status),
            }
            SnapshotMap(client, out, "changed")  # a new map takes away the images of the former


def _snapshot_bytes(client: docker.DockerClient, folder: Path) -> int:
    """What the layers of a run's snapshots hold, those of the tasks' images apart and each layer once."""
    file = folder / SNAPSHOT_FILE
    images = {image for steps in read_map(file).values() for image in steps.values()} if file.exists() else set()
    return sum(int(client.api.history(image)[0]["Size"]) for image in images)


def _peer(name: str, python: Path | None, code: str, image: str, runs: int, own: float) -> Iterator[dict[str, Any]]:
    if python is None:
        yield {"way": name, "missing": "no --peers"}
        return
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [str(python), "-c", code, image, str(runs), file.name], capture_output=True, text=True, check=False
        )
        text = file.read()
    if done.returncode != 0:
        yield {"way": name, "missing": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
        return
    times = json.loads(text)
    for kind, taken in times.items() if isinstance(times, dict) else [("", times)]:
        yield _row(f"{name}, {kind}".rstrip(", "), taken, own)


def _swe_rex_image(client: docker.DockerClient) -> str:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty").touch()
        setup = ["pip install --break-system-packages swe-rex==1.4.0"]
        row = {"id": "benchmark-swe-rex", "source": {"path": folder}, "base_setup": setup}
        return build_image(client, task_from_row(row, Path(folder)), say).tag


def _row(way: str, times: list[float], own: float) -> dict[str, Any]:
    median = statistics.median(times)
    return {
        "way": way,
        "runs": len(times),
        "median ms": round(median * 1e3, 2),
        "overhead ms": round((median - own) * 1e3, 2),
        "p90 ms": round(statistics.quantiles(times, n=10)[-1] * 1e3, 2),
    }


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
