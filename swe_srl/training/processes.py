"""The processes of one run, and the few things they do together.

Invariant: every process goes through the same program with the same numbers. Only costly work is shared out, and its results
are put together again before anything is made of them; what one of them alone can know (a signal, a file, an error while
writing) the others are told. Where one waits for another it says what for, and for how long at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from swe_srl.errors import UserError
from swe_srl.training.interrupt import StopRequested

T = TypeVar("T")
TOLD = (UserError, OSError, StopRequested)
"""What one process raises and the others are told. Anything else ends it, and whoever launched them ends the others."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a run."""

    rank: int = 0
    count: int = 1
    seconds: float = 0.0
    """How long one waits for another."""
    group: Any = None
    """Over gloo, for what is not on a device; None where there is one process."""

    @classmethod
    def of(cls, rank: int, count: int, seconds: float) -> Processes:
        """Of an initialised default process group, if there are several processes."""
        if count == 1:
            return cls()
        return cls(rank, count, seconds, dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds)))

    def apart(self) -> Processes:
        """The same processes, for what a second thread of each does together at the same time. All of them must ask for it."""
        return Processes.of(self.rank, self.count, self.seconds)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Raises UserError where another process did not do its part of what happens inside."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not _of_communication(error):
                raise
            reason = str(error).strip().split("\n", 1)[0]
            raise UserError(
                f"process {self.rank} of {self.count} waited for {what}, and another process is gone or took more than "
                f"{self.seconds:.0f} seconds (model.process_timeout): {reason}"
            ) from error

    def gather(self, what: str, mine: T) -> list[T]:
        """What each process has, by rank."""
        if self.count == 1:
            return [mine]
        found: list[Any] = [None] * self.count
        with self.waiting(what):
            dist.all_gather_object(found, mine, group=self.group)
        return found

    def highest(self, what: str, mine: int) -> int:
        """The largest number that a process has."""
        if self.count == 1:
            return mine
        number = torch.tensor(mine)
        with self.waiting(what):
            dist.all_reduce(number, op=dist.ReduceOp.MAX, group=self.group)
        return int(number)

    def from_first(self, what: str, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them; or what it raises, where that is for a person or asks to stop."""
        if self.count == 1:
            return make()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = make()
            except TOLD as error:
                told[1] = error
        with self.waiting(what):
            dist.broadcast_object_list(told, src=0, group=self.group)
        if told[1] is not None:
            raise told[1]
        made: T = told[0]
        return made

    def add_up(self, what: str, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make each parameter's gradient the sum of all processes' gradients, the same to the bit in each of them."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        with self.waiting(what):
            used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
            dist.all_reduce(used, op=dist.ReduceOp.MAX, group=self.group)
            # Without a gradient anywhere the optimizer is to leave a parameter alone, as it does with one process.
            for parameter in (p for p, by_some in zip(parameters, used.tolist(), strict=True) if by_some):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)


ALONE = Processes()
"""The only process of a run."""


def _of_communication(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()
