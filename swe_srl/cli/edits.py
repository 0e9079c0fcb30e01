"""The two commands that evaluate a policy's edits: `swe-srl evaluate oracle-edit` and `localise-edit`.

Both are one function; they differ in who names the files. Invariant: an option of one setting alone is unknown to the other.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

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
    RequestSeconds,
    Reruns,
    Retries,
    RolloutsFolder,
    Runtime,
    Seed,
    ServedAt,
    TaskFiles,
    Temperature,
    TestCommand,
    shipping,
)
from swe_srl.cli.output import report_failures, say
from swe_srl.cli.rollouts import checkpoint_of, show_tasks

_HELP = {
    "oracle": """Show a policy the issue and the files that the fix changes, apply its search/replace edits, and run the tests.

    Example: swe-srl evaluate oracle-edit environments --model runs/quickstart
    """,
    "localise": """Let a policy name the files to edit, from the issue and the tree of files; then as `oracle-edit`.

    Example: swe-srl evaluate localise-edit environments --model runs/quickstart
    """,
}


def evaluate_edits(setting: Literal["oracle", "localise"]) -> Callable[..., None]:
    """The command of a setting."""

    def command(
        tasks: TaskFiles,
        model: Model,
        out: RolloutsFolder = Path(f"runs/{setting}-edit"),
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
        cluster: ClusterName = "local",
        images: Images = None,
        as_json: Json = False,
    ) -> None:
        from dataclasses import replace

        from swe_srl.rollouts.command import PolicyChoice
        from swe_srl.rollouts.edit_agent import EditConfig
        from swe_srl.rollouts.edit_command import edit_command
        from swe_srl.rollouts.run import LIMITS, RolloutOptions

        where = (cluster, shipping(images, cluster))
        key = os.environ.get("OPENAI_API_KEY") if endpoint else None
        model, _ = checkpoint_of(model)
        policy = PolicyChoice(model, endpoint, key, temperature, answer_tokens, seed, request_seconds, engine)
        config = EditConfig(setting=setting, max_files=max_files, max_file_bytes=max_file_bytes)
        limits = replace(LIMITS, runtime=runtime)
        options = RolloutOptions(config, attempts, workers, retries, limits, overwrite, reruns, *where)
        report = edit_command(tasks, only, test_command, out, policy, options, say)
        show_tasks(report.rollouts, report.unfinished, k, seed, predictions, 0, as_json)
        report_failures(report.failed, "id")

    command.__doc__ = _HELP[setting]
    if setting == "oracle":
        _take_away(command, "max_files")
    return command


def _take_away(command: Callable[..., None], name: str) -> None:
    """Leave the command one option less: typer offers what the signature says."""
    signature = inspect.signature(command, eval_str=True)
    left = [parameter for parameter in signature.parameters.values() if parameter.name != name]
    command.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
