"""The command that audits rewards."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from swe_srl.cli.options import ClusterName, Images, Json, Sources, effects_where
from swe_srl.cli.output import output, report_failures, say, track
from swe_srl.errors import UserError


def audit(
    sources: Sources,
    samples: Annotated[
        Path | None, typer.Option(help="samples.jsonl of a run; without it: controls made from the steps.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps audited at most, drawn with the seed.")] = 200,
    seed: Annotated[int, typer.Option(help="Draws the steps, and the controls made from them.")] = 0,
    tasks: Annotated[
        list[Path] | None, typer.Option("--tasks", help="Also audit effects, in forks of these tasks' images. Repeatable.")
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="Also audit effects, in forks of this replay's snapshots.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Forks at a time.")] = 2,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds an action may take in a fork.")] = 60.0,
    cluster: ClusterName = "local",
    images: Images = None,
    report: Annotated[Path | None, typer.Option(help="Also write a page to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Score answers under every reward: how rewards are distributed, what they tell apart, where they disagree.

    Example: swe-srl audit experts.jsonl --steps 200 --report audit.html
    """
    from swe_srl.config import EffectReward
    from swe_srl.report.audit import audit_tables, write_audit_report
    from swe_srl.rewards.audit import audit_controls, audit_samples, summary
    from swe_srl.rewards.parts import text_parts

    where, way = effects_where(cluster, images, tasks, replay)
    found, bad = _steps(sources)
    parts = text_parts()
    with ExitStack() as opened:
        if tasks or replay:
            from swe_srl.environments.nodes import open_nodes
            from swe_srl.environments.task import load_tasks
            from swe_srl.rewards.executing import effect_part
            from swe_srl.terminal import progress

            options = EffectReward(
                tasks=[str(path) for path in tasks or ()],
                replay=str(replay) if replay else None,
                workers=workers,
                timeout_seconds=timeout,
            )
            nodes = opened.enter_context(open_nodes(where, way, say))
            bars = opened.enter_context(progress())
            bar = bars.add_task("executing actions", total=None)
            parts["effect"] = effect_part(options, lambda done, total: bars.update(bar, completed=done, total=total), nodes)
            if not replay:
                known = load_tasks(tasks or ()).tasks
                found = [step for step in found if step.trajectory.task_id in known]
        if not found:
            raise UserError(f"{', '.join(sources)}: no step that can be audited" + (" with these tasks" if tasks else ""))
        if samples is not None:
            groups = _groups(samples)
            audited, unknown = audit_samples(groups[:steps], {step.id: step for step in found}, parts, _progress)
            bad += [{"id": step, "reason": f"no such step in {', '.join(sources)}"} for step in unknown]
        else:
            drawn = random.Random(f"{seed}/audit").sample(found, min(steps, len(found)))
            audited = audit_controls(drawn, found, parts, seed, _progress)
    data = summary(audited)
    output(as_json, data, lambda: audit_tables(data))  # first: what was found is not lost with a page that cannot be written
    if report is not None:
        try:
            write_audit_report(data, report)
        except OSError as error:
            raise UserError(f"{report}: cannot be written: {error.strerror or error}") from error
    report_failures(bad, "id")


def _steps(sources: list[str]) -> tuple[list[Any], list[dict[str, str]]]:
    from swe_srl.rewards.audit import eligible
    from swe_srl.trajectories.importing import Found, import_trajectories
    from swe_srl.trajectories.sources import iter_sources

    results = list(import_trajectories(track(iter_sources(sources), "reading files")))
    bad = [{"id": result.place, "reason": result.reason} for result in results if not isinstance(result, Found)]
    return list(eligible(result.trajectory for result in results if isinstance(result, Found))), bad


def _groups(samples: Path) -> list[dict[str, Any]]:
    from swe_srl.report.run_data import read_lines

    if not samples.is_file():
        raise UserError(f"{samples}: no such file; name the samples.jsonl of a run")
    groups = list(read_lines(samples))
    for number, group in enumerate(groups, 1):
        if not {"step", "samples"} <= group.keys():
            raise UserError(f"{samples}, line {number}: is no group of samples: it needs `step` and `samples`")
    return groups


def _progress(name: str) -> None:
    say(f"scoring by {name} …")
