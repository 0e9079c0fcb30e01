"""Figures with their uncertainty: means with bootstrap intervals, and pass@k.

Invariant: pure functions of counts; the same seed gives the same interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with the 95% percentile-bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(totals: Sequence[float], counts: Sequence[int], seed: int, resamples: int = _RESAMPLES) -> Estimate | None:
    """The mean of all samples and its interval, from each unit's sum and number of samples. None where there are no samples.

    Units (steps, tasks) are resampled, because the samples of one are not independent. A resample that holds no sample at all
    is left out of the interval.
    """
    import numpy as np

    total, count = np.asarray(totals, dtype=float), np.asarray(counts, dtype=float)
    if count.sum() == 0:
        return None
    chosen = np.random.default_rng(seed).integers(0, len(count), size=(resamples, len(count)))
    sums, sizes = total[chosen].sum(axis=1), count[chosen].sum(axis=1)
    low, high = np.quantile(sums[sizes > 0] / sizes[sizes > 0], [0.025, 0.975])
    return Estimate(float(total.sum() / count.sum()), float(low), float(high))


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that of k samples drawn from n without replacement, c of which are right, one is: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374). Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} cannot be estimated from {c} right of {n}")
    return 1.0 - comb(n - c, k) / comb(n, k)
