"""How far the sampler's log-probabilities are from the trainer's, and what is done about it.

Invariant: pure; a weight never carries a gradient. A sampler with kernels, batching or a precision of its own draws from a
policy that is not quite the one being trained: what it drew is weighted by how much likelier the trainer finds it
(truncated importance sampling), or whole samples on which the two disagree are left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

Mismatch = Literal["none", "token", "sequence"]


def mismatch_weights(
    trainer_B_T: Tensor, sampler_B_T: Tensor, mask_B_T: Tensor, how: Mismatch, low: float, high: float
) -> Tensor:
    """weight_B_T by which the loss of each token is multiplied; 1 at padding.

    Args:
        trainer_B_T: log-probabilities under the trainer's policy, before any update on the batch.
        sampler_B_T: the sampler's own, at the same temperature.
        mask_B_T: true at sampled tokens.
        how: `token`: each token's trainer / sampler ratio, clamped to [low, high]; `sequence`: the product of these ratios over
            a sample, for all its tokens, and 0 where it is outside [low, high]; `none`: 1.
        low: 0 for no lower bound.
        high: the upper bound.
    """
    difference_B_T = _difference(trainer_B_T, sampler_B_T, mask_B_T)
    if how == "token":
        return difference_B_T.exp().clamp(low, high)
    if how == "sequence":
        ratio_B_1 = difference_B_T.sum(1, keepdim=True).exp()
        kept_B_1 = (low <= ratio_B_1) & (ratio_B_1 <= high)
        return ratio_B_1.where(kept_B_1, 0.0).expand_as(mask_B_T)
    return torch.ones_like(difference_B_T)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Between trainer and sampler over the sampled tokens of a batch; log-probabilities in nats."""

    mean: float
    """Mean |trainer - sampler|."""
    largest: float
    """The largest |trainer - sampler|."""
    kl: float
    """KL(sampler, trainer) a token, estimated by k3: mean of r - 1 - log r with r = trainer / sampler."""


def disagreement(trainer: Iterable[Sequence[float]], sampler: Iterable[Sequence[float]]) -> Disagreement | None:
    """What separates two policies' log-probabilities of the same tokens; None where there are none.

    Args:
        trainer: for each sample, one log-probability a token.
        sampler: the same, from the policy that drew the tokens.
    """
    trainer_N, sampler_N = (torch.tensor(array("d", chain.from_iterable(rows))) for rows in (trainer, sampler))
    if not len(trainer_N):
        return None
    difference_N = trainer_N - sampler_N
    k3_N = difference_N.expm1() - difference_N
    return Disagreement(difference_N.abs().mean().item(), difference_N.abs().max().item(), k3_N.mean().item())


def _difference(trainer_B_T: Tensor, sampler_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    return (trainer_B_T - sampler_B_T).detach().where(mask_B_T, 0.0)
