"""Commands in which the policy acts alone, and those that evaluate it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from swe_srl.cli.options import ClusterName, Images, Json, Sources, shipping
from swe_srl.cli.output import output, report_failures, say
from swe_srl.errors import UserError

Model = Annotated[
    str, typer.Option(help="A model's folder or name, the run folder of a training, or the name that --endpoint knows.")
]
RecipeFile = Annotated[
    Path | None, typer.Option(help="Prompt as this recipe does; of a run folder its own recipe is taken by default.")
]
Engine = Annotated[Literal["transformers", "vllm"], typer.Option(help="What samples from a model.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")]
AnswerTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens; a longer one is cut and invalid.")]
Seed = Annotated[int, typer.Option(min=0, help="Of sampling; which rollouts are sampled together depends on their timing.")]
TaskFiles = Annotated[
    list[Path],
    typer.Argument(
        help="A task.toml, a folder that holds some, or rows: .jsonl, .json, .parquet, hf:OWNER/DATASET[:SPLIT]; also of "
        "SWE-bench and SWE-smith."
    ),
]
Only = Annotated[list[str] | None, typer.Option("--task", help="Only this task. Repeatable.")]
ServedAt = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible endpoint, such as http://localhost:8000/v1; OPENAI_API_KEY is sent to it."),
]
RequestSeconds = Annotated[float, typer.Option(min=0.1, help="To wait for an endpoint's answer, before a retry.")]
TestCommand = Annotated[
    str | None,
    typer.Option(help="Of tasks that have none; {files} in it stands for the files of the test patch. pytest's -rA is read."),
]
Retries = Annotated[int, typer.Option(min=0, help="Begin a rollout again this often where its sandbox was lost.")]
Reruns = Annotated[int, typer.Option(min=0, help="Run tests again this often, in a new sandbox, where they did not all pass.")]
Runtime = Annotated[str | None, typer.Option(help="Container runtime, such as runsc (gVisor) or kata-runtime.")]
Overwrite = Annotated[bool, typer.Option(help="Begin anew; otherwise what the folder holds is not made again.")]
Attempts = Annotated[int, typer.Option(min=1, help="Rollouts from each start.")]
LiveRollouts = Annotated[int, typer.Option(min=1, help="Rollouts, and sandboxes, that are live at a time.")]
PassAt = Annotated[list[int] | None, typer.Option("--k", min=1, help="Also pass@k. Repeatable; 1 by default.")]
Predictions = Annotated[
    Path | None, typer.Option(help="Also write the final patches as SWE-bench predictions: .json or .jsonl.")
]
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
    out: Annotated[Path, typer.Option(help="Folder of the rollouts; a run that was killed goes on in it.")] = Path(
        "runs/rollouts"
    ),
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
        StartChoice(parse_start(start), tuple(experts or ()), snapshots, scaffold),
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
        _show_tasks(finished, unfinished, k, seed, predictions, attempt, as_json)
    elif predictions is not None:
        raise UserError("--predictions takes the patches of one folder: name one")
    else:
        rows = {name: evaluated(*rollouts, k or [1], seed).to_json() for name, rollouts in read.items()}
        output(as_json, {"folders": rows}, lambda: comparison_table(rows))
    left = [rollout for _, unfinished in read.values() for rollout in unfinished]
    report_failures([{"id": rollout.id, "reason": _UNFINISHED} for rollout in left], "id")


def evaluate_oracle_edit(
    tasks: TaskFiles,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the rollouts; a run that was killed goes on in it.")] = Path(
        "runs/oracle-edit"
    ),
    only: Only = None,
    endpoint: ServedAt = None,
    request_seconds: RequestSeconds = 300.0,
    attempts: Attempts = 1,
    workers: LiveRollouts = 4,
    engine: Engine = "transformers",
    temperature: Temperature = 0.0,
    answer_tokens: AnswerTokens = 2048,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="A task with a larger file is reported, not cut.")] = 200_000,
    test_command: TestCommand = None,
    k: PassAt = None,
    predictions: Predictions = None,
    seed: Seed = 0,
    retries: Retries = 1,
    reruns: Reruns = 1,
    runtime: Runtime = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a policy the issue and the files that the fix changes, apply its search/replace edits, and run the tests.

    Example: swe-srl evaluate oracle-edit environments --model runs/quickstart
    """
    choice = (model, endpoint, request_seconds, engine, temperature, answer_tokens, seed)
    config = {"setting": "oracle", "max_file_bytes": max_file_bytes}
    options = (attempts, workers, retries, runtime, overwrite, reruns)
    _evaluate_edits((tasks, only, test_command), choice, config, options, out, (k, predictions), as_json)


def evaluate_localise_edit(
    tasks: TaskFiles,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder of the rollouts; a run that was killed goes on in it.")] = Path(
        "runs/localise-edit"
    ),
    only: Only = None,
    endpoint: ServedAt = None,
    request_seconds: RequestSeconds = 300.0,
    attempts: Attempts = 1,
    workers: LiveRollouts = 4,
    engine: Engine = "transformers",
    temperature: Temperature = 0.0,
    answer_tokens: AnswerTokens = 2048,
    max_files: Annotated[int, typer.Option(min=1, help="Files that the policy may name.")] = 5,
    max_file_bytes: Annotated[int, typer.Option(min=1, help="A task with a larger file is reported, not cut.")] = 200_000,
    test_command: TestCommand = None,
    k: PassAt = None,
    predictions: Predictions = None,
    seed: Seed = 0,
    retries: Retries = 1,
    reruns: Reruns = 1,
    runtime: Runtime = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Let a policy name the files to edit, from the issue and the tree of files; then as `oracle-edit`.

    Example: swe-srl evaluate localise-edit environments --model runs/quickstart
    """
    choice = (model, endpoint, request_seconds, engine, temperature, answer_tokens, seed)
    config = {"setting": "localise", "max_files": max_files, "max_file_bytes": max_file_bytes}
    options = (attempts, workers, retries, runtime, overwrite, reruns)
    _evaluate_edits((tasks, only, test_command), choice, config, options, out, (k, predictions), as_json)


def _evaluate_edits(
    chosen: tuple[list[Path], list[str] | None, str | None],
    choice: tuple[str, str | None, float, Any, float, int, int],
    config: dict[str, Any],
    options: tuple[int, int, int, str | None, bool, int],
    out: Path,
    shown: tuple[list[int] | None, Path | None],
    as_json: bool,
) -> None:
    from dataclasses import replace

    from swe_srl.rollouts.command import PolicyChoice
    from swe_srl.rollouts.edit_agent import EditConfig
    from swe_srl.rollouts.edit_command import edit_command
    from swe_srl.rollouts.run import LIMITS, RolloutOptions

    model, endpoint, request_seconds, engine, temperature, answer_tokens, seed = choice
    attempts, workers, retries, runtime, overwrite, reruns = options
    key = os.environ.get("OPENAI_API_KEY") if endpoint else None
    policy = PolicyChoice(_checkpoint(model)[0], endpoint, key, temperature, answer_tokens, seed, request_seconds, engine)
    limits = replace(LIMITS, runtime=runtime)
    rollouts = RolloutOptions(EditConfig(**config), attempts, workers, retries, limits, overwrite, reruns)
    report = edit_command(*chosen, out, policy, rollouts, say)
    _show_tasks(report.rollouts, report.unfinished, shown[0], seed, shown[1], 0, as_json)
    report_failures(report.failed, "id")


def _show_tasks(
    finished: list[Any],
    unfinished: list[Any],
    k: list[int] | None,
    seed: int,
    predictions: Path | None,
    attempt: int,
    as_json: bool,
) -> None:
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
    to: Annotated[Path | None, typer.Option("--to", help="Also write every step and sample to this JSON file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a model's answers at expert steps with what the expert did, by tool and by place in the trajectory.

    Example: swe-srl evaluate steps trajectories/gridtext-*.jsonl --model runs/quickstart
    """
    from swe_srl.config import EffectReward
    from swe_srl.report.rollouts import step_tables
    from swe_srl.rollouts.step_command import StepChoice, evaluate_steps_command

    model, prompt = _model_and_prompt(model, recipe)
    effects = None
    if tasks or replay:
        forked = [str(path) for path in tasks or ()]
        effects = EffectReward(tasks=forked, replay=str(replay) if replay else None, workers=workers, timeout_seconds=timeout)
    choice = StepChoice(model, samples, temperature, answer_tokens, max_steps, seed, engine, effects)
    found = evaluate_steps_command(sources, choice, prompt, to, say)
    output(as_json, found.to_json(), lambda: step_tables(found.estimates(), found.parts()))


def _model_and_prompt(model: str, recipe: Path | None) -> tuple[str, Any]:
    """The model, a training's run folder standing for its checkpoint, and the prompt options of the recipe."""
    from swe_srl.config import PromptSection
    from swe_srl.recipes import load_recipe
    from swe_srl.training.data import prompt_options

    model, own = _checkpoint(model)
    recipe = recipe or own
    if own is not None:
        say(f"{model}, prompted as {recipe} says")
    return model, prompt_options(load_recipe(recipe).prompt if recipe else PromptSection())


def _checkpoint(model: str) -> tuple[str, Path | None]:
    """The model, and where it is a training's run folder, or weights that one keeps, its checkpoint and its recipe."""
    run = Path(model)
    if run.name.startswith("checkpoint") and (run.parent / "recipe.toml").is_file():
        return model, run.parent / "recipe.toml"
    if (run / "checkpoint").is_dir() and (run / "recipe.toml").is_file():
        return str(run / "checkpoint"), run / "recipe.toml"
    if run.is_dir() and not (run / "config.json").is_file():
        raise UserError(f"{model}: neither a model's folder nor a training's run folder with its checkpoint")
    return model, None
