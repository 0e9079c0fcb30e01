"""Text similarity of two actions: the paper's reward.

Invariant: the value is bit-equal to difflib's; cydifflib only computes it faster.
"""

from __future__ import annotations

from cydifflib import SequenceMatcher


def similarity(expert: str, sample: str) -> float:
    """2M / T in [0, 1]: M matched characters in SequenceMatcher's blocks, T the characters of both (arXiv 2510.25992).

    Not symmetric: the expert's text comes first. `autojunk` is off, since it distorts texts of 200 characters and more (the
    paper does not say). Two empty texts give 1.0.
    """
    ratio: float = SequenceMatcher(None, expert, sample, autojunk=False).ratio()
    return ratio
