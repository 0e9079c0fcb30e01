"""Commands that train and show what came of it, and the check of the machine."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from swe_srl.cli.options import Images, Json, shipping
from swe_srl.cli.output import exit_unless, output, say, table_of
from swe_srl.cli.reports import check_live, live_view
from swe_srl.errors import UserError


def doctor(
    recipes: Annotated[list[Path] | None, typer.Argument(help="Recipes: does this machine have the memory for them?")] = None,
    as_json: Json = False,
) -> None:
    """Say what this machine has and what to do about what is missing.

    Example: swe-srl doctor recipes/quickstart.toml
    """
    from swe_srl.doctor import examine, table

    checks = examine(recipes or ())
    ok = all(check.ok or not check.required for check in checks)
    output(as_json, {"ok": ok, "checks": [check.to_json() for check in checks]}, lambda: table(checks))
    exit_unless(ok)


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe, for example recipes/quickstart.toml; with --resume, that of the run.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; the recipe's by default.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override an option: key.sub=value. Repeatable.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run in the folder.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder, from its newest checkpoint.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Show a live view, as `swe-srl watch` does, instead of lines.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take and do nothing.")] = False,
    cluster_size: Annotated[
        list[int] | None, typer.Option(min=1, help="With --dry-run: on so many devices. Repeatable; by default 1, 8 and 64.")
    ] = None,
    costs: Annotated[Path | None, typer.Option(help="With --dry-run: your own unit costs; see docs/planning.md.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Where engines that sample, what effect rewards execute and rollouts of outcome stages run: local, ray (that "
            "of this machine or RAY_ADDRESS), or ray://HOST:PORT; the recipe's by default."
        ),
    ] = None,
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Train a policy as a recipe says: SFT and SRL stages, evaluation before and after, metrics, checkpoints.

    Example: swe-srl train recipes/quickstart.toml --out runs/first --set seed=1
    """
    if dry_run:
        if recipe is None or resume is not None or out is not None or overwrite or live or cluster or images:
            raise UserError(
                "--dry-run takes a recipe and writes nothing: leave out --resume, --out, --overwrite, --live, --cluster and "
                "--images"
            )
        _dry_run(recipe, overrides or (), cluster_size, costs, as_json)
        return
    if cluster_size or costs:
        raise UserError("--cluster-size and --costs are of a plan: add --dry-run")
    if resume is not None and (out is not None or overwrite):
        raise UserError("--resume goes on in the folder it names: leave out --out and --overwrite")
    if recipe is None and resume is None:
        raise UserError("name a recipe, or the folder of a run to go on with: --resume RUN")
    from swe_srl.recipes import load_recipe
    from swe_srl.report.tables import before_after_table
    from swe_srl.terminal import console

    if live:
        check_live()
    from swe_srl.training.opening import Where
    from swe_srl.training.trainer import train as run

    source = recipe or (resume or Path()) / "recipe.toml"
    if recipe is None and not source.is_file():
        raise UserError(f"{resume}: holds no run to continue")
    loaded = load_recipe(source, overrides or ())
    folder = resume or out or (Path(loaded.out) if loaded.out else None)
    if folder is None:
        raise UserError(f"{recipe}: names no run folder; set `out` in it or pass --out")
    named = {"address": cluster, "images": images}
    section = loaded.cluster.model_copy(update={key: value for key, value in named.items() if value})
    shipping(images, section.address)  # refused without a cluster
    with live_view(folder) if live else nullcontext(console()) as shown:
        summary = run(loaded, folder, overwrite=overwrite, resume=resume is not None, console=shown, where=Where.of(section))
    if summary.told:
        output(as_json, summary.to_json(), lambda: before_after_table(summary.before, summary.after))
    exit_unless(summary.stopped_by != signal.SIGINT)


def _dry_run(recipe: Path, overrides: Sequence[str], sizes: list[int] | None, costs: Path | None, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from swe_srl.planning.costs import load_costs
    from swe_srl.planning.plan import make_plan
    from swe_srl.planning.tables import plan_tables
    from swe_srl.recipes import load_recipe

    loaded, unit_costs = load_recipe(recipe, overrides), load_costs(costs)
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("encoding steps", total=None)
        plan = make_plan(loaded, unit_costs, sizes, lambda done, total: bars.update(task, completed=done, total=total))
    output(as_json, plan.to_json(), lambda: plan_tables(plan))
    # What was asked for by name must be possible; of the default sizes some are there to be compared with.
    exit_unless(not sizes or all(size.fits for size in plan.sizes))


def export_model(
    run: Annotated[Path, typer.Argument(help="The folder of a training run.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write; it must not exist.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Work the adapter into the weights: a model that needs no peft.")
    ] = False,
    best: Annotated[bool, typer.Option("--best", help="The weights of the best evaluation, not the last ones.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's model, or its adapter, so that transformers, peft and vLLM load it.

    Example: swe-srl export-model runs/lora --to models/coder --merge
    """
    from swe_srl.training.export import export_model as write

    write(run, to, merge=merge, best=best)
    output(as_json, {"model": str(to)}, lambda: str(to))


def profile(
    recipe: Annotated[Path, typer.Argument(help="A recipe; profiled are its training steps under its model.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The profile, JSON lines; the recipe's data.difficulty.file by default.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="Override an option: key.sub=value. Repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Sample every training step of a recipe and write how hard each is: mean and standard deviation of its rewards.

    What was sampled is kept in the cache: the same command goes on where it was interrupted.

    Example: swe-srl profile recipes/quickstart.toml --to difficulty.jsonl --set sampling.samples=16
    """
    from swe_srl.recipes import load_recipe
    from swe_srl.terminal import bar
    from swe_srl.training.profiling import profile as run

    loaded = load_recipe(recipe, overrides or ())
    file = to or (Path(loaded.data.difficulty.file) if loaded.data.difficulty else None)
    if file is None:
        raise UserError(f"{recipe}: names no profile; set data.difficulty in it or pass --to")
    with bar("sampling steps") as advance:
        found = run(loaded, file, advance, say)
    summary = found.to_json()
    say(f"{summary['steps']} steps in {file}: {summary['sampled']} sampled, {summary['cached']} from the cache")
    output(as_json, summary, lambda: table_of(summary["by_mean_reward"]))


def quickstart(
    recipe: Annotated[Path, typer.Option(help="The recipe to train.")] = Path("recipes/quickstart.toml"),
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/quickstart"),
    as_json: Json = False,
) -> None:
    """Do the main job on what ships with the project: build, replay, evaluate, train, evaluate again, report.

    Example: swe-srl quickstart
    """
    from swe_srl.quickstart import run_quickstart, summary_table

    summary = run_quickstart(recipe, out, say)
    output(as_json, summary.to_json(), lambda: summary_table(summary))
