"""Dynamic sampling: only groups whose rewards differ teach anything, so sample on until the batch is full of them.

Invariant: pure apart from the `draw` it is given; every group drawn comes back, either kept or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import pstdev
from typing import Generic, Literal, TypeVar

from swe_srl.errors import UserError

G = TypeVar("G")


def is_informative(rewards_G: Sequence[float], epsilon: float) -> bool:
    """True iff the population std of a group's rewards is above epsilon (SRL, arXiv 2510.25992, dynamic sampling)."""
    return len(rewards_G) > 0 and pstdev(rewards_G) > epsilon


@dataclass(slots=True)
class Filled(Generic[G]):
    """What filling a batch came to."""

    kept: list[G] = field(default_factory=list)
    dropped: list[G] = field(default_factory=list)
    refills: int = 0
    """Draws after the first. At the cap `kept` may be shorter than asked for."""


def usable(batch: Filled[G], *, size: int, exhausted: Literal["use", "skip", "stop"]) -> list[G]:
    """The groups to train on: those that were kept, where there are `size` of them. What else, `exhausted` says.

    `use` takes fewer, and the mean over fewer samples is as large a step; `skip` takes none; `stop` raises UserError.
    """
    short = len(batch.kept) < size
    if short and exhausted == "stop":
        drawn = len(batch.kept) + len(batch.dropped)
        raise UserError(
            f"only {len(batch.kept)} of {drawn} groups differ in their rewards, and {size} were wanted, after {batch.refills} "
            'refills: raise max_refills, lower epsilon, keep harder or easier steps (data.difficulty), or set exhausted = "use"'
        )
    return [] if short and exhausted == "skip" else batch.kept


def fill_batch(
    draw: Callable[[int], Sequence[G]], rewards: Callable[[G], Sequence[float]], *, size: int, epsilon: float, max_refills: int
) -> Filled[G]:
    """Draw groups until `size` informative ones are kept, or `max_refills` draws after the first did not suffice.

    Args:
        draw: returns as many new groups as it is asked for; each refill asks for exactly as many as are missing.
        rewards: the rewards of a group's samples.
    """
    batch: Filled[G] = Filled()
    while True:
        for group in draw(size - len(batch.kept)):
            (batch.kept if is_informative(rewards(group), epsilon) else batch.dropped).append(group)
        if len(batch.kept) >= size or batch.refills == max_refills:
            return batch
        batch.refills += 1
