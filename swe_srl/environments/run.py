"""What `swe-srl replay` and `swe-srl record` do: match trajectories with tasks, build images, run, and write the run folder.

Invariant: each result is in the run folder's `replay.jsonl` as soon as its trajectory has ended, and is not made again. From
them come `replay.json` (a summary of each trajectory and of all), `differences.jsonl` (both texts of every step that differs)
and `marks.jsonl`; what could not be replayed is in the report with its reason.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swe_srl.cluster.base import Cluster
from swe_srl.cluster.select import open_cluster
from swe_srl.environments.docker import check_runtime
from swe_srl.environments.fidelity import TrajectoryReplay
from swe_srl.environments.grading import can_grade
from swe_srl.environments.hidden_tests import with_hidden_tests
from swe_srl.environments.image import build_images
from swe_srl.environments.marks import FILE as MARKS
from swe_srl.environments.marks import Requirement, mark, write_marks
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.record import load_script
from swe_srl.environments.record import record as run_script
from swe_srl.environments.replaying import ReplayReport, ReplayWork, replay_all
from swe_srl.environments.results import FILE as RESULTS
from swe_srl.environments.results import Results, replay_key
from swe_srl.environments.sandbox import Limits
from swe_srl.environments.shipping import Shipping, send_image
from swe_srl.environments.snapshots import Keep, SnapshotMap, kept_whole
from swe_srl.environments.task import Task, load_tasks
from swe_srl.errors import UserError
from swe_srl.terminal import progress as progress_bars
from swe_srl.trajectories.importing import Found, import_trajectories
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.sources import iter_sources
from swe_srl.trajectories.storage import write_jsonl, write_lines


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How trajectories are replayed."""

    workers: int = 2
    snapshots: Keep = "none"
    require: Requirement | None = None
    """What marks the steps after one that does not meet it."""
    retries: int = 1
    """How often a trajectory whose sandbox was lost is begun again."""
    tests: bool = True
    """Run the tests of tasks that have some after the last step."""
    limits: Limits = Limits()
    overwrite: bool = False
    """Begin anew, whatever the run folder holds."""
    fresh_tests: bool = False
    """Run the tests in a new sandbox with the final patch, as a rollout's are."""
    cluster: str = "local"
    """Where: see `open_cluster`."""
    shipping: Shipping = Shipping()
    """How the nodes of a cluster come to have images."""

    def decisive(self, task: Task) -> list[Any]:
        """What of them decides a result: JSON values."""
        tests = [task.test_command, task.test_patch, task.fail_to_pass, task.pass_to_pass]
        judged = [*tests, "fresh"] if self.fresh_tests else tests
        return [asdict(self.limits), self.snapshots, judged if self.tests and can_grade(task) else None]


def replay_command(
    sources: Sequence[str],
    task_paths: Sequence[Path],
    out: Path,
    only: Sequence[str] | None,
    say: Callable[[str], None],
    options: ReplayOptions,
) -> ReplayReport:
    """Replay every trajectory in `sources` that has a task. Raises UserError where there is nothing to replay."""
    tasks = load_tasks(task_paths)
    report = ReplayReport()
    report.failed += [{"id": origin, "reason": reason} for origin, reason in tasks.bad]
    wanted = []
    for result in import_trajectories(iter_sources(sources)):
        if not isinstance(result, Found):
            place = result.file if result.line is None else f"{result.file}:{result.line}"
            report.failed.append({"id": place, "reason": result.reason})
        elif only is None or result.trajectory.task_id in only:
            wanted.append(result.trajectory)
    matched = [trajectory for trajectory in wanted if trajectory.task_id in tasks.tasks]
    for trajectory in wanted:
        if trajectory.task_id not in tasks.tasks:
            report.failed.append({"id": trajectory.id, "reason": f"no task {trajectory.task_id!r} in {_names(task_paths)}"})
    if only is None:
        idle = sorted(tasks.tasks.keys() - {trajectory.task_id for trajectory in matched})
        if idle:
            say(f"{len(idle)} tasks have no trajectory here: {', '.join(idle[:8])}{' …' if len(idle) > 8 else ''}")
    else:
        for name in only:
            if name not in {trajectory.task_id for trajectory in matched}:
                report.failed.append({"id": name, "reason": f"no trajectory of this task in {_names(sources)}"})
    if not matched:
        reasons = "; ".join(f"{item['id']}: {item['reason']}" for item in report.failed[:3]) or "no trajectory was found"
        raise UserError(f"nothing to replay: {reasons}")
    with open_cluster(options.cluster, options.workers, say) as cluster:
        _replay_matched(report, matched, tasks.tasks, out, say, options, cluster)
    return report


def record_command(script: Path, task_paths: Sequence[Path], to: Path, say: Callable[[str], None], verbose: bool) -> Trajectory:
    """Record one script and write it as ATIF. Raises UserError where the task is unknown or its image cannot be built."""
    written = load_script(script)
    tasks = load_tasks(task_paths)
    if written.task not in tasks.tasks:
        bad = next((f"; {origin}: {reason}" for origin, reason in tasks.bad), "")
        raise UserError(f"{script}: no task {written.task!r} in {_names(task_paths)}{bad}")
    task = tasks.tasks[written.task]
    client = connect_and_reap()
    built, failed = build_images(client, [task], say)
    task = with_hidden_tests(client, {task.id: task}, built, failed)[task.id]
    if failed:
        raise UserError(failed[task.id])
    trajectory = run_script(client, built[task.id].tag, task, written, say if verbose else lambda _: None)
    write_jsonl(to, [trajectory])
    return trajectory


def _replay_matched(
    report: ReplayReport,
    matched: list[Trajectory],
    tasks: dict[str, Task],
    out: Path,
    say: Callable[[str], None],
    options: ReplayOptions,
    cluster: Cluster,
) -> None:
    client = connect_and_reap()
    if options.limits.runtime:
        check_runtime(client, options.limits.runtime)
    needed = {trajectory.task_id: tasks[trajectory.task_id] for trajectory in matched}
    built, failed = build_images(client, list(needed.values()), say, options.workers)
    needed = with_hidden_tests(client, needed, built, failed)
    report.failed += [{"id": name, "reason": reason} for name, reason in failed.items()]
    ready = [trajectory for trajectory in matched if trajectory.task_id in built]
    images = {name: image.tag for name, image in built.items()}
    if options.cluster != "local":
        for tag in sorted(set(images.values())):
            send_image(client, tag, options.shipping, say)
    keys = [
        replay_key(trajectory, images[trajectory.task_id], options.decisive(needed[trajectory.task_id])) for trajectory in ready
    ]
    with Results(out, overwrite=options.overwrite) as results:
        (out / MARKS).unlink(missing_ok=True)  # those of this replay come at its end
        states = kept_whole(client, out) if options.snapshots != "none" else {}
        done, waiting = [], []
        for trajectory, key in zip(ready, keys, strict=True):
            kept = options.snapshots == "none" or states.get(trajectory.id) == sum(1 for _ in trajectory.steps()) + 1
            if key in results.finished and kept:
                done.append((trajectory, results.finished[key]))
            else:
                waiting.append((trajectory, key))
        if done:
            say(f"{len(done)} of {len(ready)} trajectories are replayed already in {out}; --overwrite begins anew")

        def keep(trajectory: Trajectory, replay: TrajectoryReplay) -> None:
            done.append((trajectory, replay))
            try:
                results.append(key_of[id(trajectory)], replay)
            except OSError as error:
                unwritten = f"its result could not be written to {out / RESULTS}: {error.strerror}"
                report.failed.append({"id": trajectory.id, "reason": unwritten})

        key_of = {id(trajectory): key for trajectory, key in waiting}
        snapshots = SnapshotMap(client, out, options.snapshots, {trajectory.id for trajectory, _ in done})
        with progress_bars() as progress:
            bar = progress.add_task("replaying steps", total=sum(1 for run, _ in waiting for _ in run.steps()))
            work = ReplayWork(
                images,
                needed,
                options.tests,
                options.fresh_tests,
                options.limits,
                options.retries,
                options.snapshots,
                snapshots,
                f"{platform.node()}:{out.resolve()}",
                shipping=options.shipping,
                client=client,
            )
            replay_all(work, [run for run, _ in waiting], cluster, on_step=lambda: progress.advance(bar), on_done=keep)
    done.sort(key=lambda pair: pair[0].id)
    for _, replay in done:
        report.add(replay)
    _write_run(out, report, done, options.require, say)


def _write_run(
    out: Path,
    report: ReplayReport,
    done: Sequence[tuple[Trajectory, TrajectoryReplay]],
    require: Requirement | None,
    say: Callable[[str], None],
) -> None:
    """What is derived from the results. Where there is no room for it the report says so, and is not lost."""
    try:
        if require is not None:
            marks = [(trajectory, mark(replay, require)) for trajectory, replay in done]
            report.marked = {
                trajectory.id: 0 if found.first is None else sum(1 for _ in trajectory.steps()) - found.first
                for trajectory, found in marks
            }
            write_marks(out, marks)
            if require.name == "returncode" and (unseen := _without_return_code(report)):
                say(f"{unseen} steps were recorded without a return code, and are taken to meet `returncode`")
        write_lines(out / "differences.jsonl", map(json.dumps, report.differences()))
        write_lines(out / "replay.json", [json.dumps(report.to_json(), indent=1)])
    except OSError as error:
        report.failed.append({"id": str(out), "reason": f"the summary could not be written: {error.strerror}"})


def _without_return_code(report: ReplayReport) -> int:
    return sum(step.recorded_returncode is None for replay in report.trajectories for step in replay.steps)


def _names(paths: Sequence[Path | str]) -> str:
    return ", ".join(map(str, paths))
