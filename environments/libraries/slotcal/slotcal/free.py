"""Searching for free time."""

from __future__ import annotations

from typing import Iterable, Optional

from .interval import Interval, subtract


def free_slots(
    window: Interval, busy: Iterable[Interval], min_length: int = 1
) -> list[Interval]:
    """The gaps of ``window`` that last at least ``min_length`` minutes."""
    return [gap for gap in subtract(window, busy) if gap.length >= min_length]


def first_fit(
    window: Interval,
    busy: Iterable[Interval],
    length: int,
    after: Optional[int] = None,
    step: int = 1,
) -> Optional[Interval]:
    """The earliest free interval of exactly ``length`` minutes, or None.

    ``after`` is the earliest start allowed. ``step`` restricts the start to
    multiples of that many minutes since midnight (15 gives quarter hours).
    """
    for slot in free_slots(window, busy, length):
        start = _round_up(max(slot.start, after or 0), step)
        if start + length <= slot.end:
            return Interval(start, start + length)
    return None


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
