"""The learning rate of an update.

Invariant: pure; update 0 is the first, and its rate is above 0.
"""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(update: int, total: int, *, peak: float, schedule: Literal["constant", "cosine"], warmup: float) -> float:
    """Linear warm-up over the first `warmup` share of the updates, then constant, or a half cosine towards 0.

    The cosine is taken at the start of each update after the warm-up, so the first of them runs at the peak and none at 0.

    Args:
        update: from 0 to total - 1.
        peak: the highest rate.
        warmup: share of the updates, 0 to 1, rounded to whole updates.
    """
    rising = round(warmup * total)
    if update < rising:
        return peak * (update + 1) / rising
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (update - rising) / max(1, total - rising)))
