"""Training in processes of their own that are killed for real."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
"""Python's audit events for what changes files; each comes just before it happens."""

SLOW_TO_IMPORT = ["swe_srl.training.trainer", "transformers.models.llama.modeling_llama", "torch._dynamo"]


def start(recipe: Path, out: Path, *, kill_before: int | None = None, count: Path | None = None) -> Any:
    """Begin or go on with the run in `out`, in a new process.

    Args:
        kill_before: the process sends itself SIGKILL just before its file event of this number in the run folder.
        count: where to write how many file events there were.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    process = context.Process(target=_carry_out, args=(recipe, out, kill_before, count))
    process.start()
    return process


def _carry_out(recipe: Path, out: Path, kill_before: int | None, count: Path | None) -> None:
    from rich.console import Console

    from swe_srl.recipes import load_recipe
    from swe_srl.training.trainer import train

    events = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal events
        if event in FILE_EVENTS and str(arguments[0]).startswith(str(out)):
            if events == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            events += 1

    sys.addaudithook(watch)
    resume = (out / "run.json").exists()
    train(load_recipe(recipe), out, resume=resume, overwrite=not resume, console=Console(quiet=True))
    if count is not None:
        count.write_text(str(events))
