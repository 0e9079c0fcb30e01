"""How far the sampler's log-probabilities are from the trainer's, and what is done about it.

Invariant: pure; a weight never carries a gradient. A sampler with kernels, batching or a precision of its own draws from a
policy that is not quite the one being trained: what it drew is weighted by how much likelier the trainer finds it
(truncated importance sampling), or whole samples on which the two disagree are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Correction = Literal["token", "sequence"]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Between two policies over the tokens of a batch; log-probabilities in nats."""

    mean: float
    """Mean distance of a token's log-probabilities."""
    largest: float
    """The largest."""
    kl: float
    """A token's KL(drew, other), estimated by k3: the mean of r - 1 - log r with r = other / drew."""


def disagreement(other_B_T: Tensor, drew_B_T: Tensor, mask_B_T: Tensor) -> Disagreement:
    """How far a policy is from the one that drew the tokens, given both's log-probabilities of them."""
    log_r_N = (other_B_T.double() - drew_B_T.double())[mask_B_T]
    k3_N = log_r_N.expm1() - log_r_N
    return Disagreement(log_r_N.abs().mean().item(), log_r_N.abs().max().item(), k3_N.mean().item())


def mismatch_ratio(trainer_B_T: Tensor, sampler_B_T: Tensor, mask_B_T: Tensor, how: Correction) -> Tensor:
    """ratio_B_T of trainer to sampler: each token's, or the product over a sample for all its tokens; without gradient.

    Args:
        trainer_B_T: log-probabilities under the trainer's policy, before any update on the batch.
        sampler_B_T: the sampler's own, at the same temperature.
        mask_B_T: true at sampled tokens.
        how: `token` or `sequence`.
    """
    log_ratio_B_T = (trainer_B_T - sampler_B_T).detach().where(mask_B_T, 0.0)
    if how == "sequence":
        log_ratio_B_T = log_ratio_B_T.sum(1, keepdim=True).expand_as(mask_B_T)
    return log_ratio_B_T.exp()


def mismatch_weights(ratio_B_T: Tensor, how: Correction, low: float, high: float) -> Tensor:
    """weight_B_T by which the loss of each token is multiplied.

    `token`: the ratio clamped to [low, high] (truncated importance sampling); `sequence`: the ratio, 0 outside [low, high]
    (masked importance sampling).
    """
    return ratio_B_T.clamp(low, high) if how == "token" else ratio_B_T.masked_fill(beyond(ratio_B_T, low, high), 0.0)


def beyond(ratio_B_T: Tensor, low: float, high: float) -> Tensor:
    """True where a ratio is outside [low, high]."""
    return (ratio_B_T < low) | (ratio_B_T > high)
