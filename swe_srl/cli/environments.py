"""Commands that need Docker: images, sandboxes, replay, recording."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from swe_srl.cli.options import ClusterName, Images, Json, Tasks, Workers, shipping
from swe_srl.cli.output import exit_unless, output, report_failures, say, table_of
from swe_srl.errors import UserError


def env_docker() -> None:
    """Use the Docker daemon that answers, or install and start one (root on Debian or Ubuntu).

    Example: swe-srl env docker
    """
    from swe_srl.environments.daemon import ensure_daemon

    ensure_daemon(say)
    say("a Docker daemon answers")


def env_base(
    names: Annotated[list[str] | None, typer.Argument(help="py311 or py39; all where none is named.")] = None,
    as_json: Json = False,
) -> None:
    """Make base images without a registry (Debian with Python and git).

    Example: swe-srl env base py311
    """
    from swe_srl.environments.base_image import BASE_IMAGES, ensure_base_image
    from swe_srl.environments.docker import connect

    unknown = [name for name in names or [] if name not in BASE_IMAGES]
    if unknown:
        raise UserError(f"unknown base image {unknown[0]!r}; known: {', '.join(BASE_IMAGES)}")
    client = connect()
    tags = [BASE_IMAGES[name].tag for name in names or BASE_IMAGES]
    for tag in tags:
        ensure_base_image(client, tag, say)
    output(as_json, {"images": tags}, lambda: "\n".join(tags))


def env_build(
    tasks: Tasks,
    only: Annotated[list[str] | None, typer.Option("--task", help="Build only this task. Repeatable.")] = None,
    workers: Workers = 2,
    cluster: ClusterName = "local",
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Build the images of tasks; an image that exists is not built again. Every node of a cluster has them afterwards.

    Example: swe-srl env build --tasks environments

    For several machines: swe-srl env build --tasks my-tasks --cluster ray://head:10001 --images registry:HOST:5000/agents
    """
    from swe_srl.cluster.select import open_cluster
    from swe_srl.environments.image import build_images
    from swe_srl.environments.reaper import connect_and_reap
    from swe_srl.environments.spreading import spread_images

    found, way = _tasks(tasks), shipping(images, cluster)
    wanted = _select(found.tasks, only)
    with open_cluster(cluster, workers, say) as nodes:
        client = connect_and_reap()
        built, failed = build_images(client, wanted, say, workers)
        rows: list[dict[str, Any]] = [
            {"task": image.task_id, "image": image.tag, "seconds": round(image.seconds, 1), "cached": image.cached}
            for image in built.values()
        ]
        reasons = [{"task": name, "reason": reason} for name, reason in failed.items()]
        reasons += [{"task": origin, "reason": reason} for origin, reason in found.bad]
        if cluster != "local":
            tags = {name: image.tag for name, image in built.items()}
            had, missing = spread_images(nodes, client, tags, found.tasks, way, say)
            rows = [{**row, "nodes": had[row["task"]]} for row in rows]
            reasons += missing
    output(as_json, {"images": rows, "failed": reasons}, lambda: table_of(rows))
    report_failures(reasons, "task")


def env_list(as_json: Json = False) -> None:
    """List base and task images.

    Example: swe-srl env list --json
    """
    from swe_srl.environments.docker import connect
    from swe_srl.environments.image import list_images

    images = list_images(connect())
    output(as_json, {"images": images}, lambda: table_of([{**row, "bytes": f"{row['bytes'] / 1e6:.0f} MB"} for row in images]))


def env_shell(
    step: Annotated[str, typer.Argument(metavar="TRAJECTORY@K", help="A step whose snapshot a replay has kept.")],
    run: Annotated[Path, typer.Option(help="Run folder of the replay.")] = Path("runs/replay"),
) -> None:
    """Open a terminal in a new sandbox at the state before a step. The sandbox is removed when you leave it.

    Example: swe-srl env shell ttlbox-expiry-edge-demonstration@3
    """
    from swe_srl.environments.docker import DockerSandbox
    from swe_srl.environments.reaper import connect_and_reap
    from swe_srl.environments.snapshots import find_snapshot
    from swe_srl.environments.terminal import open_terminal

    image = find_snapshot(run, step)
    with DockerSandbox.start(connect_and_reap(), image) as sandbox:
        open_terminal(sandbox)


def env_reap(as_json: Json = False) -> None:
    """Remove the containers and temporary images that killed runs left. Every command that starts sandboxes does it first.

    Example: swe-srl env reap
    """
    from swe_srl.environments.docker import connect
    from swe_srl.environments.reaper import reap

    reaped = reap(connect())
    text = f"removed {len(reaped.containers)} containers and {len(reaped.images)} images; {reaped.unknown} belong to runs that "
    output(as_json, reaped.to_json(), lambda: text + "cannot be judged from here")
    exit_unless(not reaped.stuck)


def env_prune(
    max_size: Annotated[str, typer.Option(help="What task images and snapshots may take together, such as 20GB or 500MB.")],
    as_json: Json = False,
) -> None:
    """Remove the images used longest ago until the rest fit; none that is in use, and no base image.

    Example: swe-srl env prune --max-size 20GB
    """
    from docker.errors import DockerException
    from docker.utils import parse_bytes

    from swe_srl.environments.docker import connect
    from swe_srl.environments.prune import prune_images

    try:
        limit = int(parse_bytes(max_size))
    except (DockerException, ValueError) as error:
        raise UserError(f"--max-size {max_size}: expected a number with a unit, such as 20GB or 500MB") from error
    done = prune_images(connect(), limit)
    output(as_json, asdict(done), lambda: table_of([{"removed": tag} for tag in done.removed]))
    say(f"{len(done.removed)} images removed; {done.bytes_before / 1e9:.2f} GB before, {done.bytes_after / 1e9:.2f} GB now")
    if done.bytes_after > limit:
        report_failures([{"id": "images", "reason": f"the rest is in use, more than {max_size}"}], "id")


def replay(
    trajectories: Annotated[list[str], typer.Argument(help="Trajectory files, folders or globs, of any known format.")],
    tasks: Tasks,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/replay.")] = None,
    only: Annotated[list[str] | None, typer.Option("--task", help="Replay only trajectories of this task. Repeatable.")] = None,
    workers: Workers = 2,
    snapshot: Annotated[
        Literal["all", "changed", "none"],
        typer.Option(help="Keep the state before every step: an image each, or one where a step changed something."),
    ] = "none",
    require: Annotated[
        str | None,
        typer.Option(help="Mark the steps after one that is not: exact, returncode, or similarity>=X. Training drops them."),
    ] = None,
    tests: Annotated[bool, typer.Option(help="After the last step, run the tests of tasks that have some.")] = True,
    fresh_tests: Annotated[
        bool, typer.Option("--fresh-tests", help="Run them in a new sandbox with the final patch, as a rollout's are.")
    ] = False,
    retries: Annotated[int, typer.Option(min=0, help="Begin a trajectory again this often where its sandbox was lost.")] = 1,
    runtime: Annotated[str | None, typer.Option(help="Container runtime, such as runsc (gVisor) or kata-runtime.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Begin anew; otherwise what the run folder holds is not run again.")] = False,
    cluster: ClusterName = "local",
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Re-execute trajectories in containers and compare every observation with the recorded one.

    Example: swe-srl replay trajectories --tasks environments --json
    """
    from swe_srl.environments.marks import parse_requirement
    from swe_srl.environments.run import ReplayOptions, replay_command
    from swe_srl.environments.sandbox import Limits
    from swe_srl.report.replays import replay_tables

    if fresh_tests and not tests:
        raise UserError("--fresh-tests says how tests are run, and --no-tests that they are not: leave one out")
    required = parse_requirement(require) if require else None
    limits = Limits(runtime=runtime)
    options = ReplayOptions(
        workers, snapshot, required, retries, tests, limits, overwrite, fresh_tests, cluster, shipping(images, cluster)
    )
    report = replay_command(trajectories, tasks, out or Path("runs/replay"), only, say, options)
    output(as_json, report.to_json(), lambda: replay_tables(report.to_json()))
    report_failures(report.failed, "id")


def record(
    script: Annotated[Path, typer.Argument(help="TOML file with a task, a scaffold, and thoughts and actions.")],
    tasks: Tasks,
    to: Annotated[Path, typer.Option("--to", help="The ATIF JSON lines file to write.")],
    verbose: Annotated[bool, typer.Option(help="Show every observation.")] = False,
    as_json: Json = False,
) -> None:
    """Run a written list of thoughts and actions in a sandbox and write the trajectory with its real observations.

    Example: swe-srl record trajectories/scripts/ttlbox-expiry-edge.toml --tasks environments --to demonstration.jsonl
    """
    from swe_srl.environments.run import record_command

    trajectory = record_command(script, tasks, to, say, verbose)
    summary = {
        "id": trajectory.id,
        "steps": sum(1 for _ in trajectory.steps()),
        "resolved": trajectory.resolved,
        "file": str(to),
    }
    output(as_json, summary, lambda: table_of([summary]))
    exit_unless(trajectory.resolved is not False)


def _tasks(paths: list[Path]) -> Any:
    from swe_srl.environments.task import load_tasks

    return load_tasks(paths)


def _select(tasks: dict[str, Any], only: list[str] | None) -> list[Any]:
    missing = [name for name in only or [] if name not in tasks]
    if missing:
        raise UserError(f"no task {missing[0]!r} in --tasks; known: {', '.join(sorted(tasks)[:20])}")
    return [tasks[name] for name in only] if only else list(tasks.values())
