"""What `swe-srl replay` and `swe-srl record` do: match trajectories with tasks, build images, run, and write the run folder.

Invariant: the run folder holds `replay.json` (a summary of each trajectory) and `differences.jsonl` (both texts of every step
that differs); what could not be replayed is in the report with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swe_srl.environments.image import build_image, build_images
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.record import load_script
from swe_srl.environments.record import record as run_script
from swe_srl.environments.replay import ReplayReport, replay_all
from swe_srl.environments.snapshots import Keep, SnapshotMap
from swe_srl.environments.task import Task, load_tasks
from swe_srl.errors import UserError
from swe_srl.trajectories.importing import Found, import_trajectories
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.sources import iter_sources
from swe_srl.trajectories.storage import write_jsonl


def replay_command(
    sources: Sequence[str],
    task_paths: Sequence[Path],
    out: Path,
    only: Sequence[str] | None,
    workers: int,
    say: Callable[[str], None],
    keep: Keep = "none",
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
    _replay_matched(report, matched, tasks.tasks, workers, say, out, keep)
    _write_run(out, report)
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
    image = build_image(client, task, say)
    trajectory = run_script(client, image.tag, task, written, say if verbose else lambda _: None)
    write_jsonl(to, [trajectory])
    return trajectory


def replay_table(report: ReplayReport) -> Any:
    """The summaries as a terminal table."""
    from rich.table import Table

    table = Table("trajectory", "steps", "exact", "raw", "any order", "return codes", "similarity", "patch", "seconds")
    for replay in report.trajectories:
        row = replay.summary()
        codes = f"{row['return_codes_matched']}/{row['return_codes_compared']}"
        patch = {True: "equal", False: "differs", None: "-"}[row["submission_equal"]]
        counts = [str(row[key]) for key in ("steps", "exact", "exact_raw", "exact_unordered")]
        table.add_row(row["id"], *counts, codes, f"{row['mean_similarity']:.4f}", patch, f"{row['seconds']:.1f}")
    return table


def progress_bar() -> Progress:
    """A progress bar on standard error: what, how many of how many, elapsed and remaining time."""
    from rich.console import Console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _replay_matched(
    report: ReplayReport,
    matched: list[Trajectory],
    tasks: dict[str, Task],
    workers: int,
    say: Callable[[str], None],
    out: Path,
    keep: Keep,
) -> None:
    client = connect_and_reap()
    needed = {trajectory.task_id: tasks[trajectory.task_id] for trajectory in matched}
    built, failed = build_images(client, list(needed.values()), say, workers)
    report.failed += [{"id": name, "reason": reason} for name, reason in failed.items()]
    ready = [trajectory for trajectory in matched if trajectory.task_id in built]
    images = {name: image.tag for name, image in built.items()}
    snapshots = SnapshotMap(client, out, keep)
    with progress_bar() as progress:
        bar = progress.add_task("replaying steps", total=sum(1 for trajectory in ready for _ in trajectory.steps()))
        advance = lambda: progress.advance(bar)  # noqa: E731
        done = replay_all(client, images, ready, workers=workers, on_step=advance, snapshots=snapshots)
    report.trajectories += done.trajectories
    report.failed += done.failed


def _write_run(out: Path, report: ReplayReport) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "replay.json").write_text(json.dumps(report.to_json(), indent=1))
    with (out / "differences.jsonl").open("w") as file:
        for difference in report.differences():
            file.write(json.dumps(difference, ensure_ascii=False) + "\n")


def _names(paths: Sequence[Path | str]) -> str:
    return ", ".join(map(str, paths))
