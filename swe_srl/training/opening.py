"""Where a run is done, whether it may write into a folder, and what is left to do where it is finished.

Invariant: nothing is changed in a folder that another process writes a run in, or that holds a run nobody asked to replace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console

from swe_srl.config import ClusterSection, Recipe
from swe_srl.environments.nodes import Nodes, open_nodes
from swe_srl.environments.shipping import Shipping
from swe_srl.training.checkpoints import Checkpoints
from swe_srl.training.evaluations import Evaluations
from swe_srl.training.folder import RunFolder
from swe_srl.training.processes import Processes
from swe_srl.training.resume import check_recipe
from swe_srl.training.summary import RunSummary, summary
from swe_srl.training.terminal import say


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


@dataclass(frozen=True, slots=True)
class Where:
    """Where what is not the update is done."""

    cluster: str = "local"
    """This machine, or a Ray cluster (see `swe_srl.cluster.select`): of engines, what effect rewards execute, and rollouts."""
    shipping: Shipping = field(default_factory=Shipping)
    """How its nodes come to have images."""

    @classmethod
    def of(cls, section: ClusterSection) -> Where:
        """As a recipe says."""
        return cls(section.address, Shipping.parse(section.images))

    @property
    def on_nodes(self) -> bool:
        """Whether it is another machine's."""
        return self.cluster != "local"

    @contextmanager
    def open(self, processes: Processes, say: Callable[[str], None]) -> Iterator[Nodes | None]:
        """In the first process the nodes; None in others, and for this machine. Raises UserError as `open_nodes`."""
        with ExitStack() as stack:
            joined: list[Nodes | None] = []
            join = partial(stack.enter_context, open_nodes(self.cluster, self.shipping, say))
            processes.from_first("the cluster to be joined", lambda: joined.append(join()))
            yield joined[0] if joined else None
