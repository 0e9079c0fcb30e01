"""Log-probabilities of given tokens from hidden states, without ever holding all logits.

Invariant: at most `LOGITS_AT_ONCE` logits exist at a time (one row at least), forward and backward: each chunk's are computed
again in backward, but for the last, whose backward comes first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**26
"""256 MiB in float32."""


def token_logprobs(head: Callable[[Tensor], Tensor], hidden_N_E: Tensor, targets_N: Tensor, temperature: float = 1.0) -> Tensor:
    """logprobs_N of the targets under softmax(head(hidden) / temperature), taken in float32."""
    rows = max(1, LOGITS_AT_ONCE // _vocabulary(head))
    *others, last = zip(torch.split(hidden_N_E, rows), torch.split(targets_N, rows), strict=True)
    chunks = [checkpoint(_logprobs, head, *chunk, temperature, use_reentrant=False) for chunk in others]
    return torch.cat([*chunks, _logprobs(head, *last, temperature)])


def _logprobs(head: Callable[[Tensor], Tensor], hidden_C_E: Tensor, targets_C: Tensor, temperature: float) -> Tensor:
    logits_C_V = head(hidden_C_E).float()
    if temperature != 1:
        logits_C_V = logits_C_V / temperature
    return torch.log_softmax(logits_C_V, -1).gather(1, targets_C.unsqueeze(1)).squeeze(1)


def _vocabulary(head: Callable[[Tensor], Tensor]) -> int:
    weight: Tensor = head.weight  # type: ignore[attr-defined]
    return weight.shape[0]
