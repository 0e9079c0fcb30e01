"""Options that several commands share, each explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from swe_srl.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Tasks = Annotated[
    list[Path], typer.Option("--tasks", help="A task.toml, a folder that holds some, or a .jsonl file. Repeatable.")
]
Sources = Annotated[list[str], typer.Argument(help="Files, folders, glob patterns, or hf:OWNER/DATASET[:SPLIT].")]
ResultsFile = Annotated[Path | None, typer.Option(help="Outcomes beside the runs: rows with instance_id and resolved.")]
Workers = Annotated[int, typer.Option(min=1, help="How many to work on at a time.")]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster",
        help="Where sandboxes run: local, ray (that of this machine or RAY_ADDRESS), or ray://HOST:PORT. How many at a time, "
        "nodes say themselves; --workers then is of images built here.",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        help="How a cluster's nodes get images: build (the default), registry:HOST/PATH, or folder:PATH that all of them share."
    ),
]
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
RolloutsFolder = Annotated[Path, typer.Option(help="Folder of the rollouts; a run that was killed goes on in it.")]
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


def shipping(images: str | None, cluster: str) -> Any:
    """What --images and --cluster say together. Raises UserError where they do not go together."""
    from swe_srl.environments.shipping import Shipping

    if images is not None and cluster == "local":
        raise UserError("--images is about the nodes of a cluster: add --cluster")
    return Shipping.parse(images or "build")


def effects_where(cluster: str, images: str | None, tasks: list[Path] | None, replay: Path | None) -> tuple[str, Any]:
    """The cluster on which effects are found and how it gets images. Raises UserError where none are to be found."""
    if cluster != "local" and not (tasks or replay):
        raise UserError("--cluster says where effects are found: add --tasks or --replay, or leave it out")
    return cluster, shipping(images, cluster)


def with_quiet(command: Any, option: Any = None) -> Any:
    """The command, and every command below it, with the option --quiet."""
    option = option or _quiet_option()
    inner = getattr(command, "commands", None)
    if inner is None:
        command.params.append(option)
    for one in (inner or {}).values():
        with_quiet(one, option)
    return command


def _be_quiet(quiet: bool) -> None:
    from swe_srl.cli.output import silence_libraries
    from swe_srl.terminal import be_quiet

    be_quiet(quiet)
    if quiet:
        silence_libraries()


_Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="No messages and no progress on standard error; errors stay.",
        callback=_be_quiet,
        expose_value=False,
    ),
]


def _quiet_option() -> Any:
    """The option as typer makes it, to be given to commands that do not name it."""
    app = typer.Typer(add_completion=False)
    app.command()(_only_quiet)
    return next(param for param in typer.main.get_command(app).params if param.name == "quiet")


def _only_quiet(quiet: _Quiet = False) -> None:
    pass
