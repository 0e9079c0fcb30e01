"""Half-open intervals of minutes, and the set operations on lists of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable


@dataclass(frozen=True, order=True)
class Interval:
    """The minutes from ``start`` up to, but not including, ``end``."""

    start: int
    end: int

    def __post_init__(self):
        if self.end <= self.start:
            raise ValueError(f"empty interval: {self.start}..{self.end}")

    @property
    def length(self) -> int:
        return self.end - self.start

    def overlaps(self, other: Interval) -> bool:
        """True if at least one minute is in both intervals."""
        return self.start < other.end and other.start < self.end

    def contains(self, other: Interval) -> bool:
        """True if ``other`` lies wholly inside this interval."""
        return self.start <= other.start and other.end <= self.end

    def pad(self, minutes: int) -> Interval:
        """Grow the interval by ``minutes`` on both sides."""
        return Interval(self.start - minutes, self.end + minutes)


def merge(intervals: Iterable[Interval], gap: int = 0) -> list[Interval]:
    """Join intervals that overlap, touch, or are at most ``gap`` minutes apart.

    The result is sorted and its members are pairwise disjoint.
    """
    result: list[Interval] = []
    for item in sorted(intervals):
        if result and item.start <= result[-1].end + gap:
            last = result.pop()
            item = Interval(last.start, max(last.end, item.end))
        result.append(item)
    return result


def subtract(base: Interval, holes: Iterable[Interval]) -> list[Interval]:
    """Return what is left of ``base`` once every hole is cut out, in order."""
    rest: list[Interval] = []
    cursor = base.start
    for hole in merge(holes):
        if hole.end <= cursor:
            continue
        if hole.start >= base.end:
            break
        if hole.start > cursor:
            rest.append(Interval(cursor, hole.start))
        cursor = hole.end
    if cursor < base.end:
        rest.append(Interval(cursor, base.end))
    return rest
