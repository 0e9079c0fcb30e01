"""Attention through a sliding window or with sinks: what is seen of the prefix and the pass's own keys, side by side.

Invariant: outputs and gradients equal those of every branch as a sequence of its own, as in attention.py. On CUDA it is
FlexAttention with a BlockMask built from the packing, so that no S x K mask exists. Elsewhere FlexAttention has no backward,
and attention is computed densely, by the book: the reference that tests compare.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    from swe_srl.training.tree.attention import LayerPrefix, Packing

BLOCK = 128
"""FlexAttention's block size."""
_BLOCKS_AT_ONCE = 64
"""Rows of blocks whose tokens are counted at once."""


def flex_serves(device: torch.device) -> bool:
    """Whether FlexAttention has a backward there."""
    return device.type == "cuda"


class Spans:
    """Which keys each of S packed tokens sees: a run of the prefix and a run of its own branch.

    Keys are numbered from 0: those of the prefix from `first` to `end`, then the S of the pass. Runs end before their `to`.
    """

    def __init__(self, packing: Packing, window: int | None) -> None:
        limits, lengths = torch.tensor(packing.limits), torch.tensor(packing.lengths)
        limit_S, start_S = (x.repeat_interleave(lengths) for x in (limits, lengths.cumsum(0) - lengths))
        token_S = torch.arange(len(limit_S))
        position_S = limit_S + token_S - start_S
        oldest_S = torch.zeros_like(position_S) if window is None else (position_S - window + 1).clamp(min=0)
        self.first, self.end = int(oldest_S.min()), int(limits.max())
        own = self.end - self.first
        self.keys = own + len(limit_S)
        runs = (
            oldest_S.minimum(limit_S) - self.first,
            limit_S - self.first,
            own + start_S + (oldest_S - limit_S).clamp(min=0),
            own + token_S + 1,
        )
        self.from_prefix_S, self.to_prefix_S, self.from_own_S, self.to_own_S = (run.to(packing.device) for run in runs)

    @cached_property
    def block_mask(self) -> BlockMask:
        """The mask for FlexAttention."""
        return block_mask(self)

    def visible(self, token: Tensor, key: Tensor) -> Tensor:
        """Whether tokens see keys, by their numbers."""
        prefix = (key >= self.from_prefix_S[token]) & (key < self.to_prefix_S[token])
        return prefix | ((key >= self.from_own_S[token]) & (key < self.to_own_S[token]))

    def dense(self) -> Tensor:
        """mask_S_K."""
        device = self.to_own_S.device
        return self.visible(torch.arange(len(self.to_own_S), device=device)[:, None], torch.arange(self.keys, device=device))


def block_mask(spans: Spans) -> BlockMask:
    """The mask for FlexAttention. Blocks are counted from the runs' ends, never by looking at all pairs."""
    from torch.nn.attention.flex_attention import BlockMask

    tokens, device = len(spans.to_own_S), spans.to_own_S.device
    runs = ((spans.from_prefix_S, spans.to_prefix_S), (spans.from_own_S, spans.to_own_S))
    begins_K = torch.arange(0, spans.keys, BLOCK, device=device)
    counts = []
    for at in range(0, tokens, _BLOCKS_AT_ONCE * BLOCK):
        span = slice(at, at + _BLOCKS_AT_ONCE * BLOCK)
        seen_S_K = torch.stack([_overlap(begin[span], end[span], begins_K) for begin, end in runs]).sum(0)
        seen_S_K = torch.nn.functional.pad(seen_S_K, (0, 0, 0, -len(seen_S_K) % BLOCK))
        counts.append(seen_S_K.reshape(-1, BLOCK, len(begins_K)).sum(1))
    counts_R_K = torch.cat(counts)
    full_R_K = counts_R_K == BLOCK * BLOCK
    partial_R_K = (counts_R_K > 0) & ~full_R_K
    return BlockMask.from_kv_blocks(
        *_indices(partial_R_K),
        *_indices(full_R_K),
        BLOCK_SIZE=BLOCK,
        mask_mod=lambda batch, head, token, key: spans.visible(token, key),
        seq_lengths=(tokens, spans.keys),
    )


def _overlap(begin_S: Tensor, end_S: Tensor, block_K: Tensor) -> Tensor:
    """How many keys of each block lie in each run: overlap_S_K."""
    return (torch.minimum(end_S[:, None], block_K + BLOCK) - torch.maximum(begin_S[:, None], block_K)).clamp(min=0)


def _indices(wanted_R_K: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks of each row are wanted, and all blocks with the wanted ones first, as FlexAttention takes them."""
    counts = wanted_R_K.sum(-1).int()
    return counts[None, None], wanted_R_K.int().argsort(dim=-1, descending=True, stable=True).int()[None, None]


class _Prepend(torch.autograd.Function):
    """A pass's own keys (or values) behind those of the prefix, whose gradients are added up where the prefix keeps them."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, shared: Tensor, total: Tensor) -> Tensor:
        ctx.total = total
        return torch.cat([shared, own], 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        tokens = ctx.total.shape[2]
        ctx.total.add_(grad[:, :, :tokens])
        return grad[:, :, tokens:], None, None


def windowed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    prefix: LayerPrefix | None,
    scale: float,
    window: int | None,
    sinks_H: Tensor | None,
) -> Tensor:
    """Attention of packed branches in which a token sees `window` tokens, itself included; None is all of them.

    Args:
        module: the attention layer that asks.
        sinks_H: for each head a score that takes part in the softmax and has no value.

    Returns:
        output_1_S_H_D.
    """
    spans = packing.spans.get(window) or packing.spans.setdefault(window, Spans(packing, window))
    if prefix is not None and spans.end > spans.first:
        seen = slice(spans.first, spans.end)
        key = _prepend(key, prefix.key[:, :, seen], prefix.grad_key[:, :, seen])
        value = _prepend(value, prefix.value[:, :, seen], prefix.grad_value[:, :, seen])
    if not flex_serves(query.device):
        return dense_attention(query, key, value, spans.dense(), scale, sinks_H)
    from transformers.integrations.flex_attention import flex_attention_forward

    output: Tensor
    output, _ = flex_attention_forward(module, query, key, value, spans.block_mask, scaling=scale, s_aux=sinks_H)
    return output


def _prepend(own: Tensor, shared: Tensor, total: Tensor) -> Tensor:
    joined: Tensor = _Prepend.apply(own, shared, total)  # type: ignore[no-untyped-call]
    return joined


def dense_attention(
    query: Tensor, key: Tensor, value: Tensor, mask_S_K: Tensor, scale: float, sinks_H: Tensor | None = None
) -> Tensor:
    """Softmax attention where the mask is true, in float32 at least: output_1_S_H_D."""
    exact, heads = torch.promote_types(query.dtype, torch.float32), query.shape[1] // key.shape[1]
    with torch.autocast(query.device.type, enabled=False):
        key, value = (x.to(exact).repeat_interleave(heads, 1) for x in (key, value))
        scores = (query.to(exact) @ key.transpose(-1, -2) * scale).masked_fill(~mask_S_K, float("-inf"))
        if sinks_H is not None:
            sinks = sinks_H.to(exact).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, sinks], -1)
        output = scores.softmax(-1)[..., : key.shape[2]] @ value
    return output.to(query.dtype).transpose(1, 2)
