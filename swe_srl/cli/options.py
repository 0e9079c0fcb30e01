"""Options that several commands share, each explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


def shipping(images: str | None, cluster: str) -> Any:
    """What --images and --cluster say together. Raises UserError where they do not go together."""
    from swe_srl.environments.shipping import Shipping

    if images is not None and cluster == "local":
        raise UserError("--images is about the nodes of a cluster: add --cluster")
    return Shipping.parse(images or "build")


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
