"""The losses, one number a sequence.

Invariant: pure functions of log-probabilities; each returns the mean over a sequence's own tokens. Whoever sums them divides by
the number of sequences of the whole batch, so the batch loss is the mean over sequences of the mean over tokens, in any
micro-batching.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sft_loss(logprobs_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Negative log-likelihood of each target, averaged over its tokens: short and long targets weigh the same.

    Args:
        logprobs_B_T: log-probability of each target token.
        mask_B_T: true at target tokens, false at padding.

    Returns:
        loss_B.
    """
    return -_token_mean(logprobs_B_T, mask_B_T)


def grpo_loss(
    logprobs_B_T: Tensor,
    old_logprobs_B_T: Tensor,
    mask_B_T: Tensor,
    advantages_B: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """-min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A), averaged over each sample's tokens.

    GRPO (arXiv 2402.03300, equation 3) as SRL uses it (arXiv 2510.25992): token ratios, a mean over a sample's tokens, no KL.

    Args:
        logprobs_B_T: log-probability of each sampled token under the policy being updated.
        old_logprobs_B_T: the same under the policy that sampled; with one update a batch, `logprobs_B_T.detach()`.
        mask_B_T: true at sampled tokens, false at padding.
        advantages_B: one advantage a sample.

    Returns:
        loss_B.
    """
    ratio_B_T = torch.exp(logprobs_B_T - old_logprobs_B_T)
    clipped_B_T = ratio_B_T.clamp(1 - clip_low, 1 + clip_high)
    advantages_B_1 = advantages_B.unsqueeze(1)
    return -_token_mean(torch.minimum(ratio_B_T * advantages_B_1, clipped_B_T * advantages_B_1), mask_B_T)


def _token_mean(values_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Mean over the true positions of each row; padding contributes neither value nor gradient, a row without tokens is 0."""
    return values_B_T.where(mask_B_T, 0.0).sum(1) / mask_B_T.sum(1).clamp(min=1)
