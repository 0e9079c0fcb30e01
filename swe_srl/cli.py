"""The command line: every command is a few lines over one function of the package.

Invariant: exit status 0 only when everything asked for was done; a user's mistake is one clear message and status 1, never a
traceback. Heavy packages are imported inside the commands that need them.
"""

from __future__ import annotations

import errno
import json
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import typer

from swe_srl.errors import UserError

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=("Train coding agents from expert trajectories: replay them in real containers, reward each step, update by GRPO."),
)
env = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Docker, base images and task images.")
app.add_typer(env, name="env")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Tasks = Annotated[
    list[Path], typer.Option("--tasks", help="A task.toml, a folder that holds some, or a .jsonl file. Repeatable.")
]
Sources = Annotated[list[str], typer.Argument(help="Files, folders, glob patterns, or hf:OWNER/DATASET[:SPLIT].")]
ResultsFile = Annotated[Path | None, typer.Option(help="Outcomes beside the runs: rows with instance_id and resolved.")]
Workers = Annotated[int, typer.Option(min=1, help="How many to work on at a time.")]


def main() -> None:
    """Run the command line and exit with its status."""
    # A job that is ended from outside cleans up as one that is interrupted.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        status = app(standalone_mode=False)
        if status == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        _fail(str(error))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; what was finished is kept, containers of this run are removed", status=130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _fail(f"the disk is full ({error.filename or 'while writing'}): free space and run the command again")
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}")
    except Exception as error:
        if (shown := getattr(error, "show", None)) is None:  # click's own usage errors know how to show themselves
            raise
        shown()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(status if isinstance(status, int) else 0)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has and what to do about what is missing.

    Example: swe-srl doctor
    """
    from swe_srl.doctor import examine, table

    checks = examine()
    ok = all(check.ok or not check.required for check in checks)
    _output(as_json, {"ok": ok, "checks": [check.to_json() for check in checks]}, lambda: table(checks))
    _exit_unless(ok)


@app.command("import")
def import_(
    sources: Sources,
    to: Annotated[Path, typer.Option("--to", help="The ATIF JSON lines file to write.")],
    resolved_only: Annotated[bool, typer.Option(help="Keep only runs that are known to have solved their task.")] = False,
    results: ResultsFile = None,
    min_steps: Annotated[int | None, typer.Option(help="Keep only runs with at least this many steps.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Keep only runs with at most this many steps.")] = None,
    max_characters: Annotated[int | None, typer.Option(help="Keep only runs of at most this many characters.")] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="Keep only these formats. Repeatable.")] = None,
    tools: Annotated[list[str] | None, typer.Option("--tool", help="Keep only runs that call no others. Repeatable.")] = None,
    repositories: Annotated[
        list[str] | None, typer.Option("--repository", help="Keep only runs on owner/name; * matches any. Repeatable.")
    ] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Keep only runs by this model; * matches any.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Drop the tasks whose ids a file lists, or swe-bench-verified. Repeatable.")
    ] = None,
    drop_duplicates: Annotated[
        str | None, typer.Option(help="exact: drop repeated runs. near: and runs of a task with 90% of the same actions.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first place that cannot be read.")] = False,
    as_json: Json = False,
) -> None:
    """Read expert trajectories of any known format and write them as ATIF JSON lines.

    Example: swe-srl import runs/ --to experts.jsonl --resolved-only --drop-duplicates near
    """
    from swe_srl.trajectories.choosing import Filters, excluded_tasks, load_results
    from swe_srl.trajectories.importing import run_import

    if drop_duplicates not in (None, "exact", "near"):
        raise UserError(f"--drop-duplicates {drop_duplicates}: expected exact or near")
    filters = Filters(
        resolved_only,
        min_steps,
        max_steps,
        frozenset(formats or ()),
        max_characters,
        frozenset(tools or ()),
        tuple(repositories or ()),
        tuple(models or ()),
        excluded_tasks(exclude or ()),
    )
    done = run_import(
        sources,
        to,
        filters,
        track=lambda found: _track(found, "reading files"),
        results=load_results(results) if results else None,
        drop=cast(Literal["exact", "near"] | None, drop_duplicates),
        strict=strict,
    )
    counts = [{"format": name, **asdict(count)} for name, count in done.formats.items()]
    _output(as_json, asdict(done), lambda: _rows(counts))
    filtered = "".join(f", {count} {reason}" for reason, count in done.filtered_by.items())
    _say(f"read {done.read} = kept {done.kept} + filtered {done.filtered} + bad {done.bad}; {done.steps} steps{filtered}")
    places = [{"id": bad.place, "reason": bad.reason} for bad in done.reasons]
    if not done.kept:
        places.append({"id": str(to), "reason": "nothing was kept, so it was not written"})
    _report_failures(places, "id")


@app.command()
def stats(
    sources: Sources,
    results: ResultsFile = None,
    tokens: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    as_json: Json = False,
) -> None:
    """Count what trajectories hold: steps, tools, outcomes, lengths, malformed answers, duplicates; by format and overall.

    Example: swe-srl stats experts.jsonl --tokens Qwen/Qwen2.5-Coder-7B-Instruct
    """
    from swe_srl.report.trajectories import statistics_table
    from swe_srl.trajectories.choosing import load_results
    from swe_srl.trajectories.statistics import collect

    count = None
    if tokens is not None:
        from swe_srl.policy.model import load_tokenizer

        tokenizer = load_tokenizer(tokens)
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    loaded = load_results(results) if results else None
    found = collect(sources, results=loaded, count_tokens=count, track=lambda items: _track(items, "reading files"))
    data = found.to_json()
    _output(as_json, data, lambda: statistics_table(data))
    _report_failures([{"id": bad.place, "reason": bad.reason} for bad in found.bad], "id")


@app.command()
def export(
    sources: Sources,
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    to_format: Annotated[str, typer.Option(help="sft-chat, trl-prompt, verl (parquet), nemo-gym, adp or atif.")],
    as_json: Json = False,
) -> None:
    """Write trajectories in the format another trainer reads.

    Example: swe-srl export experts.jsonl --to-format sft-chat --to chat.jsonl
    """
    from swe_srl.trajectories.exporting import run_export

    done = run_export(sources, to, to_format, track=lambda found: _track(found, "reading files"))
    counts = {"format": done.format, "trajectories": done.trajectories, "rows": done.rows, "file": str(to)}
    _output(as_json, {**counts, "bad": [asdict(bad) for bad in done.bad]}, lambda: _rows([counts]))
    _report_failures([{"id": bad.place, "reason": bad.reason} for bad in done.bad], "id")


@env.command("docker")
def env_docker() -> None:
    """Use the Docker daemon that answers, or install and start one (root on Debian or Ubuntu).

    Example: swe-srl env docker
    """
    from swe_srl.environments.daemon import ensure_daemon

    ensure_daemon(_say)
    _say("a Docker daemon answers")


@env.command("base")
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
        ensure_base_image(client, tag, _say)
    _output(as_json, {"images": tags}, lambda: "\n".join(tags))


@env.command("build")
def env_build(
    tasks: Tasks,
    only: Annotated[list[str] | None, typer.Option("--task", help="Build only this task. Repeatable.")] = None,
    workers: Workers = 2,
    as_json: Json = False,
) -> None:
    """Build the images of tasks; an image that exists is not built again.

    Example: swe-srl env build --tasks environments
    """
    from swe_srl.environments.image import build_images
    from swe_srl.environments.reaper import connect_and_reap

    found = _tasks(tasks)
    wanted = _select(found.tasks, only)
    built, failed = build_images(connect_and_reap(), wanted, _say, workers)
    rows = [
        {"task": image.task_id, "image": image.tag, "seconds": round(image.seconds, 1), "cached": image.cached}
        for image in built.values()
    ]
    reasons = [{"task": name, "reason": reason} for name, reason in failed.items()]
    reasons += [{"task": origin, "reason": reason} for origin, reason in found.bad]
    _output(as_json, {"images": rows, "failed": reasons}, lambda: _rows(rows))
    _report_failures(reasons, "task")


@env.command("list")
def env_list(as_json: Json = False) -> None:
    """List base and task images.

    Example: swe-srl env list --json
    """
    from swe_srl.environments.docker import connect
    from swe_srl.environments.image import list_images

    images = list_images(connect())
    _output(as_json, {"images": images}, lambda: _rows([{**row, "bytes": f"{row['bytes'] / 1e6:.0f} MB"} for row in images]))


@env.command("shell")
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


@env.command("reap")
def env_reap(as_json: Json = False) -> None:
    """Remove the containers and temporary images that killed runs left. Every command that starts sandboxes does it first.

    Example: swe-srl env reap
    """
    from swe_srl.environments.docker import connect
    from swe_srl.environments.reaper import reap

    reaped = reap(connect())
    text = f"removed {len(reaped.containers)} containers and {len(reaped.images)} images; {reaped.unknown} belong to runs that "
    _output(as_json, reaped.to_json(), lambda: text + "cannot be judged from here")


@env.command("prune")
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
    _output(as_json, asdict(done), lambda: _rows([{"removed": tag} for tag in done.removed]))
    _say(f"{len(done.removed)} images removed; {done.bytes_before / 1e9:.2f} GB before, {done.bytes_after / 1e9:.2f} GB now")
    if done.bytes_after > limit:
        _report_failures([{"id": "images", "reason": f"the rest is in use, more than {max_size}"}], "id")


@app.command()
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
    as_json: Json = False,
) -> None:
    """Re-execute trajectories in containers and compare every observation with the recorded one.

    Example: swe-srl replay trajectories --tasks environments --json
    """
    from swe_srl.environments.run import replay_command, replay_table

    report = replay_command(trajectories, tasks, out or Path("runs/replay"), only, workers, _say, snapshot)
    _output(as_json, report.to_json(), lambda: replay_table(report))
    _report_failures(report.failed, "id")


@app.command()
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

    trajectory = record_command(script, tasks, to, _say, verbose)
    summary = {
        "id": trajectory.id,
        "steps": sum(1 for _ in trajectory.steps()),
        "resolved": trajectory.resolved,
        "file": str(to),
    }
    _output(as_json, summary, lambda: _rows([summary]))
    _exit_unless(trajectory.resolved is not False)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/quickstart.toml.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; the recipe's by default.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override an option: key.sub=value. Repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a finished run in the folder.")] = False,
    as_json: Json = False,
) -> None:
    """Train a policy as a recipe says: SFT and SRL stages, evaluation before and after, metrics, a checkpoint.

    Example: swe-srl train recipes/quickstart.toml --out runs/first --set seed=1
    """
    from swe_srl.config import load_recipe
    from swe_srl.report.tables import before_after_table
    from swe_srl.training.trainer import train as run

    loaded = load_recipe(recipe, overrides or ())
    folder = out or (Path(loaded.out) if loaded.out else None)
    if folder is None:
        raise UserError(f"{recipe}: names no run folder; set `out` in it or pass --out")
    summary = run(loaded, folder, overwrite=overwrite)
    _output(as_json, summary.to_json(), lambda: before_after_table(summary.before, summary.after))
    _exit_unless(not summary.interrupted)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[Path | None, typer.Option("--to", help="HTML file; RUN/report.html by default.")] = None,
    as_json: Json = False,
) -> None:
    """Write a self-contained HTML report of a run.

    Example: swe-srl report runs/quickstart
    """
    from swe_srl.report.html import write_report

    path = write_report(run, to)
    _output(as_json, {"report": str(path)}, lambda: str(path))


@app.command()
def quickstart(
    recipe: Annotated[Path, typer.Option(help="The recipe to train.")] = Path("recipes/quickstart.toml"),
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/quickstart"),
    as_json: Json = False,
) -> None:
    """Do the main job on what ships with the project: build, replay, evaluate, train, evaluate again, report.

    Example: swe-srl quickstart
    """
    from swe_srl.quickstart import run_quickstart, summary_table

    summary = run_quickstart(recipe, out, _say)
    _output(as_json, summary.to_json(), lambda: summary_table(summary))


def _tasks(paths: list[Path]) -> Any:
    from swe_srl.environments.task import load_tasks

    return load_tasks(paths)


def _select(tasks: dict[str, Any], only: list[str] | None) -> list[Any]:
    missing = [name for name in only or [] if name not in tasks]
    if missing:
        raise UserError(f"no task {missing[0]!r} in --tasks; known: {', '.join(sorted(tasks)[:20])}")
    return [tasks[name] for name in only] if only else list(tasks.values())


def _output(as_json: bool, data: dict[str, Any], human: Callable[[], Any]) -> None:
    if as_json:
        sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        return
    from rich.console import Console

    # A table that is piped into a file has no terminal to fit into.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print(human())


def _rows(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(*(rows[0] if rows else ["nothing"]))
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    return table


def _report_failures(failures: list[dict[str, str]], key: str) -> None:
    for failure in failures:
        sys.stderr.write(f"error: {failure[key]}: {failure['reason']}\n")
    _exit_unless(not failures)


def _track(items: Sequence[T], what: str) -> Iterable[T]:
    """The items one by one, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    return track(items, what, console=Console(stderr=True), transient=True)


def _exit_unless(ok: bool) -> None:
    if not ok:
        raise typer.Exit(1)


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _fail(message: str, status: int = 1) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
