"""Commands in which the policy acts alone, and those that evaluate it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from swe_srl.cli.options import (
    AnswerTokens,
    Attempts,
    ClusterName,
    Engine,
    Images,
    Json,
    LiveRollouts,
    Model,
    Only,
    Overwrite,
    PassAt,
    Predictions,
    RecipeFile,
    RequestSeconds,
    Reruns,
    Retries,
    RolloutsFolder,
    Runtime,
    Seed,
    ServedAt,
    Sources,
    TaskFiles,
    Temperature,
    TestCommand,
    effects_where,
    shipping,
)
from swe_srl.cli.output import output, report_failures, say
from swe_srl.errors import UserError

_UNFINISHED = "the infrastructure failed; run the command that made it again"


def rollout(
    tasks: TaskFiles,
    model: Annotated[
        str,
        typer.Option(
            help="A model's folder or name, the run folder of a training, the name that --endpoint knows, or `expert`: "
            "play the actions of --experts."
        ),
    ],
    out: RolloutsFolder = Path("runs/rollouts"),
    scaffold: Annotated[
        str | None, typer.Option(help="Tools and shell of the policy; swe-agent by default, an expert's own at its steps.")
    ] = None,
    only: Only = None,
    endpoint: ServedAt = None,
    request_seconds: RequestSeconds = 300.0,
    recipe: RecipeFile = None,
    start: Annotated[str, typer.Option(help="issue, step:K (before the expert's step K), or last:N.")] = "issue",
    experts: Annotated[
        list[str] | None, typer.Option(help="Trajectory files, folders or globs to begin at steps of. Repeatable.")
    ] = None,
    snapshots: Annotated[
        Path | None,
        typer.Option(help="Run folder of `replay --snapshot`: fork its states, and execute no step again where one is kept."),
    ] = None,
    own_history: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Ask the policy at the expert's steps before the start, too; where its action is at least this similar, it "
            "goes on with its own turn instead of the expert's.",
        ),
    ] = None,
    attempts: Attempts = 1,
    workers: LiveRollouts = 4,
    engine: Engine = "transformers",
    temperature: Temperature = 1.0,
    answer_tokens: AnswerTokens = 1024,
    max_steps: Annotated[int, typer.Option(min=1, help="Answers after which a rollout ends.")] = 50,
    max_tokens: Annotated[int, typer.Option(min=1, help="Sampled tokens after which no further answer is asked for.")] = 50_000,
    max_seconds: Annotated[float, typer.Option(min=1, help="Seconds that its commands may take together.")] = 1800.0,
    max_format_errors: Annotated[int, typer.Option(min=1, help="Invalid answers in a row after which it ends.")] = 3,
    seed: Seed = 0,
    test_command: TestCommand = None,
    retries: Retries = 1,
    reruns: Reruns = 1,
    runtime: Runtime = None,
    overwrite: Overwrite = False,
    cluster: ClusterName = "local",
    images: Images = None,
    as_json: Json = False,
) -> None:
    """Let a policy solve tasks alone in sandboxes, and run their tests on what it leaves.

    Example: swe-srl rollout environments --model runs/quickstart --out runs/rollouts

    On several machines: swe-srl rollout my-tasks --model runs/quickstart --cluster ray://head:10001 --images folder:/nfs/images
    """
    from dataclasses import replace

    from swe_srl.report.rollouts import rollout_table
    from swe_srl.rollouts.agent import AgentConfig
    from swe_srl.rollouts.command import PolicyChoice, StartChoice, rollout_command
    from swe_srl.rollouts.run import LIMITS, RolloutOptions
    from swe_srl.rollouts.starts import parse_start

    where = (cluster, shipping(images, cluster))
    model, prompt = _model_and_prompt(model, recipe)
    agent = AgentConfig(
        max_steps=max_steps, max_tokens=max_tokens, max_seconds=max_seconds, max_format_errors=max_format_errors
    )
    key = os.environ.get("OPENAI_API_KEY") if endpoint else None
    report = rollout_command(
        tasks,
        only,
        out,
        PolicyChoice(model, endpoint, key, temperature, answer_tokens, seed, request_seconds, engine),
        prompt,
        StartChoice(parse_start(start), tuple(experts or ()), snapshots, scaffold, own_history),
        RolloutOptions(agent, attempts, workers, retries, replace(LIMITS, runtime=runtime), overwrite, reruns, *where),
        say,
        test_command,
    )
    output(as_json, report.to_json(), lambda: rollout_table(report.to_json()))
    report_failures(report.failed, "id")


def evaluate_tasks(
    runs: Annotated[list[Path], typer.Argument(help="Folder of rollouts; several are compared, a row each.")],
    k: PassAt = None,
    predictions: Predictions = None,
    attempt: Annotated[int, typer.Option(min=0, help="Whose patches --predictions takes.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Json = False,
) -> None:
    """Say how many tasks a folder's rollouts resolve, with intervals, pass@k, costs and how they ended.

    Example: swe-srl evaluate tasks runs/rollouts --k 1 --k 4 --predictions preds.json
    """
    from swe_srl.report.rollouts import comparison_table
    from swe_srl.rollouts.folder import read_rollouts
    from swe_srl.rollouts.tasks import evaluate_tasks as evaluated

    read = {str(run): read_rollouts(run) for run in runs}
    if len(read) == 1:
        [(finished, unfinished)] = read.values()
        show_tasks(finished, unfinished, k, seed, predictions, attempt, as_json)
    elif predictions is not None:
        raise UserError("--predictions takes the patches of one folder: name one")
    else:
        rows = {name: evaluated(*rollouts, k or [1], seed).to_json() for name, rollouts in read.items()}
        output(as_json, {"folders": rows}, lambda: comparison_table(rows))
    left = [rollout for _, unfinished in read.values() for rollout in unfinished]
    report_failures([{"id": rollout.id, "reason": _UNFINISHED} for rollout in left], "id")


def show_tasks(
    finished: list[Any],
    unfinished: list[Any],
    k: list[int] | None,
    seed: int,
    predictions: Path | None,
    attempt: int,
    as_json: bool,
) -> None:
    """Show what rollouts resolve, after writing their predictions where a file is named."""
    from swe_srl.report.rollouts import task_tables
    from swe_srl.rollouts import tasks

    evaluation = tasks.evaluate_tasks(finished, unfinished, k or [1], seed).to_json()
    if predictions is not None:
        say(f"{tasks.write_predictions(finished, predictions, attempt)} predictions in {predictions}")
    output(as_json, evaluation, lambda: task_tables(evaluation))


def evaluate_steps(
    sources: Sources,
    model: Model,
    recipe: RecipeFile = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers a step.")] = 1,
    engine: Engine = "transformers",
    temperature: Temperature = 0.0,
    answer_tokens: AnswerTokens = 512,
    max_steps: Annotated[int | None, typer.Option(min=1, help="This many steps at most, drawn with the seed.")] = None,
    seed: Seed = 0,
    tasks: Annotated[
        list[Path] | None,
        typer.Option(
            "--tasks", help="Also execute valid answers, in forks of these tasks' images, and compare effects. Repeatable."
        ),
    ] = None,
    replay: Annotated[Path | None, typer.Option(help="Also execute them, in forks of this replay's snapshots.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Forks at a time.")] = 2,
    timeout: Annotated[float, typer.Option(min=1.0, help="Seconds an answer may take in a fork.")] = 60.0,
    cluster: ClusterName = "local",
    images: Images = None,
    to: Annotated[Path | None, typer.Option("--to", help="Also write every step and sample to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a model's answers at expert steps with what the expert did, by tool and by place in the trajectory.

    Example: swe-srl evaluate steps trajectories/gridtext-*.jsonl --model runs/quickstart
    """
    from swe_srl.config import EffectReward
    from swe_srl.report.rollouts import step_tables
    from swe_srl.rollouts.step_command import StepChoice, evaluate_steps_command

    where = effects_where(cluster, images, tasks, replay)
    model, prompt = _model_and_prompt(model, recipe)
    effects = None
    if tasks or replay:
        forked = [str(path) for path in tasks or ()]
        effects = EffectReward(tasks=forked, replay=str(replay) if replay else None, workers=workers, timeout_seconds=timeout)
    choice = StepChoice(model, samples, temperature, answer_tokens, max_steps, seed, engine, effects, *where)
    found = evaluate_steps_command(sources, choice, prompt, to, say)
    output(as_json, found.to_json(), lambda: step_tables(found.estimates(), found.parts()))


def _model_and_prompt(model: str, recipe: Path | None) -> tuple[str, Any]:
    """The model, a training's run folder standing for its checkpoint, and the prompt options of the recipe."""
    from swe_srl.config import PromptSection
    from swe_srl.recipes import load_recipe
    from swe_srl.training.data import prompt_options

    model, own = checkpoint_of(model)
    recipe = recipe or own
    if own is not None:
        say(f"{model}, prompted as {recipe} says")
    return model, prompt_options(load_recipe(recipe).prompt if recipe else PromptSection())


def checkpoint_of(model: str) -> tuple[str, Path | None]:
    """The model, and where it is a training's run folder, or weights that one keeps, its checkpoint and its recipe."""
    run = Path(model)
    if run.name.startswith("checkpoint") and (run.parent / "recipe.toml").is_file():
        return model, run.parent / "recipe.toml"
    if (run / "checkpoint").is_dir() and (run / "recipe.toml").is_file():
        return str(run / "checkpoint"), run / "recipe.toml"
    if run.is_dir() and not (run / "config.json").is_file():
        raise UserError(f"{model}: neither a model's folder nor a training's run folder with its checkpoint")
    return model, None
