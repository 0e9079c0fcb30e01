"""How much better each sample of a group was than the group.

Invariant: pure; a group's advantages sum to zero. Standard deviations are population ones (divide by G) throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

SMALLEST_STD = 1e-6
"""Below this a group counts as equal: rounding must not be blown up into advantages."""


def group_advantages(rewards_G: Sequence[float], *, std_normalisation: bool = True) -> list[float]:
    """(r - mean) / std of each sample within its group (GRPO, arXiv 2402.03300, section 4.1.2; SRL, arXiv 2510.25992).

    Args:
        rewards_G: the rewards of one step's G samples.
        std_normalisation: divide by the population standard deviation; without it (Dr. GRPO, arXiv 2503.20783), r - mean.

    Returns:
        G advantages; all zero where the rewards are equal.
    """
    mean, std = fmean(rewards_G), pstdev(rewards_G)
    if std < SMALLEST_STD:
        return [0.0] * len(rewards_G)
    return [(reward - mean) / (std if std_normalisation else 1.0) for reward in rewards_G]
