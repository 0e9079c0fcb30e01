"""What the first of several processes does alone, with a sampler that all of them work for.

Invariant: all processes `lead` alike and get the same result, or the same error. In between, what the first asks of the sampler
all ask of it, however often that is: so a sampler that shares out its work serves here as it does elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from swe_srl.policy.base import CanSample, Sample, SamplingOptions
from swe_srl.training.batches import Batch, Batches
from swe_srl.training.processes import TOLD, Processes

T = TypeVar("T")


_Asked = tuple[Sequence[Sequence[int]], SamplingOptions]


@dataclass(frozen=True, slots=True)
class _Made(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class Leader:
    """Implements `swe_srl.policy.base.CanSample`, for what the first process does inside `lead`."""

    sampler: CanSample
    """This process's part of the one that all share."""
    processes: Processes

    def lead(self, what: str, make: Callable[[], T]) -> T:
        """What the first process makes, in all of them; or what it raises, as `Processes.from_first` does."""
        if self.processes.first:
            made: _Made[T] = self.processes.from_first(what, lambda: _Made(make()))
            return made.value
        while True:
            told: _Made[T] | _Asked = self.processes.from_first(what, _never)
            if isinstance(told, _Made):
                return told.value
            # What sampling raises it raises in all processes, and the first makes of it what it will.
            with suppress(*TOLD):
                self.sampler.sample(*told)

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """See `CanSample`."""
        return self.sampler.sample(*self.processes.from_first("prompts to sample", lambda: (prompts, options)))


class LedBatches:
    """Batches that the first process draws, in all of them; see `Batches`."""

    def __init__(self, own: Batches | None, leader: Leader) -> None:
        """`own`: the first process's, sampled by the leader."""
        self._own, self._leader = own, leader

    def __next__(self) -> Batch:
        """See `Batches`."""
        return self._leader.lead("a batch", lambda: next(_of_first(self._own)))

    def state(self) -> dict[str, int]:
        """See `Batches`: known to the first process, which writes it down."""
        return {} if self._own is None else self._own.state()

    def restore(self, state: Mapping[str, int]) -> None:
        """See `Batches`."""
        if self._own is not None:
            self._own.restore(state)


def _of_first(own: Batches | None) -> Batches:
    assert own is not None, "the first process has them"
    return own


def _never() -> Any:
    raise AssertionError("made by the first process alone")
