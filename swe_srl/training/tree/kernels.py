"""Attention over one block of keys that also gives its log-sum-exp, and its gradient under a log-sum-exp given from outside.

Invariant: `attention_backward` is the gradient of softmax attention over *more* keys than it is shown, of which these are a
part: given the output and the log-sum-exp of the whole, the parts' gradients add up exactly (as in ring attention,
arXiv 2310.01889). Differentiating a merge of parts by autograd would not do: flash kernels give no gradient for their
log-sum-exp.

Shapes: query_B_H_L_D, key_B_K_S_D and value_B_K_S_D with H a multiple of K (grouped heads), log-sum-exp lse_B_H_L.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_aten: Any = torch.ops.aten
_ROWS = 256
"""Query rows that the plain implementation works on at once, so that no L x S matrix is ever whole."""


def attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float) -> tuple[Tensor, Tensor, Any]:
    """Softmax attention over these keys alone.

    Returns:
        The output like the query, its log-sum-exp, and what `attention_backward` takes as `saved`.
    """
    if not _flash_serves(query, value):
        return *_plain(query, key, value, causal, scale), None
    if query.device.type == "cpu":
        output, lse = _aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=None, scale=scale
        )
        return output, lse, None
    key, value = _repeat(key, query.shape[1]), _repeat(value, query.shape[1])
    output, lse, *saved, _ = _aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, False, scale=scale)
    return output, lse, saved


def attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    lse: Tensor,
    saved: Any,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, where `output` and `lse` are those over all keys and `grad` is the output's."""
    if not _flash_serves(query, value):
        return _plain_backward(grad, query, key, value, output, lse, causal, scale)
    if query.device.type == "cpu":
        # The kernel reads the storage of its own forward's log-sum-exp: row by row, all heads together.
        lse = lse.transpose(1, 2).contiguous().transpose(1, 2)
        grads: tuple[Tensor, Tensor, Tensor] = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, output, lse, 0.0, causal, attn_mask=None, scale=scale
        )
        return grads
    heads, groups = query.shape[1], key.shape[1]
    cum_q, cum_k, max_q, max_k, seed, offset = saved
    grad_query, grad_key, grad_value = _aten._scaled_dot_product_flash_attention_backward(
        grad, query, _repeat(key, heads), _repeat(value, heads), output, lse.contiguous(),
        cum_q, cum_k, max_q, max_k, 0.0, causal, seed, offset, scale=scale,
    )  # fmt: skip
    return grad_query, _sum_groups(grad_key, groups), _sum_groups(grad_value, groups)


def _flash_serves(query: Tensor, value: Tensor) -> bool:
    """Whether torch has a kernel that gives the log-sum-exp for these tensors."""
    if query.shape[-1] != value.shape[-1]:
        return False
    if query.device.type == "cpu":
        return True
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.device.type == "cuda" and half and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


def _repeat(x_B_K_S_D: Tensor, heads: int) -> Tensor:
    return x_B_K_S_D.repeat_interleave(heads // x_B_K_S_D.shape[1], 1)


def _sum_groups(x_B_H_S_D: Tensor, groups: int) -> Tensor:
    B, _, S, D = x_B_H_S_D.shape
    return x_B_H_S_D.reshape(B, groups, -1, S, D).sum(2)


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _scores(query: Tensor, key_B_H_S_D: Tensor, start: int, causal: bool, scale: float) -> Tensor:
    """Scaled scores of the query rows from `start` on, -inf where a row may not look."""
    scores = query[:, :, start : start + _ROWS] @ key_B_H_S_D.transpose(-1, -2) * scale
    if causal:
        rows = torch.arange(start, start + scores.shape[-2], device=scores.device)
        columns = torch.arange(scores.shape[-1], device=scores.device)
        scores = scores.masked_fill(columns > rows[:, None], float("-inf"))
    return scores


def _plain(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    dtype, heads = query.dtype, query.shape[1]
    query, key, value = _exact(query), _repeat(_exact(key), heads), _repeat(_exact(value), heads)
    outputs, lses = [], []
    for start in range(0, query.shape[2], _ROWS):
        scores = _scores(query, key, start, causal, scale)
        outputs.append(scores.softmax(-1) @ value)
        lses.append(scores.logsumexp(-1))
    return torch.cat(outputs, 2).to(dtype), torch.cat(lses, 2)


def _plain_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    dtype, heads, groups = query.dtype, query.shape[1], key.shape[1]
    grad, query, output = _exact(grad), _exact(query), _exact(output)
    key, value = _repeat(_exact(key), heads), _repeat(_exact(value), heads)
    delta = (grad * output).sum(-1, keepdim=True)
    grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    for start in range(0, query.shape[2], _ROWS):
        rows = slice(start, start + _ROWS)
        weights = (_scores(query, key, start, causal, scale) - lse[:, :, rows, None]).exp()
        grad_scores = weights * (grad[:, :, rows] @ value.transpose(-1, -2) - delta[:, :, rows]) * scale
        grad_query[:, :, rows] = grad_scores @ key
        grad_key += grad_scores.transpose(-1, -2) @ query[:, :, rows]
        grad_value += weights.transpose(-1, -2) @ grad[:, :, rows]
    return grad_query.to(dtype), _sum_groups(grad_key, groups).to(dtype), _sum_groups(grad_value, groups).to(dtype)
