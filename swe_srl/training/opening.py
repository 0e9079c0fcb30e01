"""Whether a run may write into a folder, and what is left to do where it is finished.

Invariant: nothing is changed in a folder that another process writes a run in, or that holds a run nobody asked to replace.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.console import Console

from swe_srl.cluster.select import open_ray
from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.training.checkpoints import Checkpoints
from swe_srl.training.evaluations import Evaluations
from swe_srl.training.folder import RunFolder
from swe_srl.training.processes import Processes
from swe_srl.training.resume import check_recipe
from swe_srl.training.summary import RunSummary, summary
from swe_srl.training.terminal import say

if TYPE_CHECKING:
    from swe_srl.cluster.ray import RayCluster


def finished_already(folder: RunFolder, recipe: Recipe, stack: ExitStack, *, overwrite: bool, resume: bool) -> bool:
    """Whether the run to continue is finished; a folder to continue in stays locked until the stack is left.

    Raises UserError where the folder is not this run's to write.
    """
    if not resume:
        folder.check(overwrite=overwrite)
        return False
    check_recipe(folder, recipe)
    stack.enter_context(folder.locked())
    return folder.status == "finished"


def end_again(recipe: Recipe, folder: RunFolder, console: Console) -> RunSummary:
    """Do what a kill at the very end of a run left undone."""
    written = folder.read_status()
    Checkpoints(folder.path, 1).remove()
    evaluations = Evaluations(recipe, folder)
    evaluations.load(written["updates"])
    say(console, f"{folder.path}: the run is finished already")
    return summary(folder.path, evaluations.made, written["updates"], written["seconds"])


def open_nodes(name: str, processes: Processes, say: Callable[[str], None]) -> RayCluster:
    """The Ray cluster whose nodes carry engines. Raises UserError where there is none, or several processes would share it."""
    if processes.count > 1:
        raise UserError(f"--cluster {name} takes one process, and this is one of {processes.count}: leave it out")
    return open_ray(name, say)
