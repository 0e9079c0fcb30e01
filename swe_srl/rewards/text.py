"""Text similarity: the paper's reward, and what may be varied of it.

Invariant: with no cap, or texts within it, the value is bit-equal to difflib's; cydifflib only computes it faster.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

from cydifflib import SequenceMatcher

Unit = Literal["character", "token", "line"]
"""What is matched: a character; a word, a run of space or a single sign; a line with its end."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


class Match(NamedTuple):
    """How much of two texts matched: `2 * matched / total` is their similarity."""

    matched: int
    """M: units in SequenceMatcher's matching blocks."""
    total: int
    """T: units of both texts."""

    @property
    def ratio(self) -> float:
        """2M / T, as difflib computes it; 1.0 where there is nothing to match."""
        return 2.0 * self.matched / self.total if self.total else 1.0


def similarity(expert: str, sample: str, *, unit: Unit = "character", autojunk: bool = False, cap: int | None = None) -> float:
    """2M / T in [0, 1]: M matched units in SequenceMatcher's blocks, T the units of both texts (arXiv 2510.25992).

    Not symmetric: the expert's text comes first. Two empty texts give 1.0.

    Args:
        unit: the paper says "sequence" of the action's text; characters are difflib's own reading.
        autojunk: difflib's default heuristic. The paper does not say; it distorts texts of 200 units and more, so it is off.
        cap: bounds time and memory. Where a text has more units than this, the common beginning and the common end of both are
            matched first, and of what lies between only the first `cap` units of each; all units count in T. So a long
            near-copy keeps its score, and nothing beyond the cap can add to one.
    """
    return match(expert, sample, unit=unit, autojunk=autojunk, cap=cap).ratio


def match(expert: str, sample: str, *, unit: Unit = "character", autojunk: bool = False, cap: int | None = None) -> Match:
    """M and T of `similarity`, for adding up over several texts."""
    ours, theirs = _units(expert, unit), _units(sample, unit)
    total = len(ours) + len(theirs)
    if cap is None or max(len(ours), len(theirs)) <= cap:
        return Match(_matched(ours, theirs, autojunk), total)
    begin = _common(ours, theirs)
    ours, theirs = ours[begin:], theirs[begin:]
    end = _common(ours[::-1], theirs[::-1])
    ours, theirs = ours[: len(ours) - end], theirs[: len(theirs) - end]
    return Match(begin + end + _matched(ours[:cap], theirs[:cap], autojunk), total)


def similarities(
    pairs: Sequence[tuple[str, str]],
    *,
    unit: Unit = "character",
    autojunk: bool = False,
    cap: int | None = None,
    processes: int = 1,
) -> list[float]:
    """`similarity` of many (expert, sample) pairs, in their order.

    processes: above 1 the pairs are shared out over that many; starting them takes a good part of a second, so it pays for long
        actions only. The values do not depend on it.
    """
    one = partial(_of_pair, unit=unit, autojunk=autojunk, cap=cap)
    if processes == 1 or len(pairs) < 2:
        return list(map(one, pairs))
    # Not by fork: a trainer has threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(one, pairs, chunksize=max(1, len(pairs) // (8 * processes))))


def _of_pair(pair: tuple[str, str], *, unit: Unit, autojunk: bool, cap: int | None) -> float:
    return similarity(*pair, unit=unit, autojunk=autojunk, cap=cap)


def _units(text: str, unit: Unit) -> Sequence[str]:
    if unit == "character":
        return text
    return _TOKEN.findall(text) if unit == "token" else text.splitlines(keepends=True)


def _matched(expert: Sequence[str], sample: Sequence[str], autojunk: bool) -> int:
    blocks: Iterable[tuple[int, int, int]] = SequenceMatcher(None, expert, sample, autojunk=autojunk).get_matching_blocks()
    return sum(size for _, _, size in blocks)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """How many units both begin with."""
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
