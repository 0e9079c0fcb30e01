"""Key-value caches for sampling n continuations of each prompt, where a prompt is computed once and stored once.

Invariant: `prefill` and `step` return the logits that a separate forward pass over prompt + sample would give, up to rounding.

`PackedDecoder` runs the live samples of all prompts as one packed row of tokens. Each attention layer answers a prompt's
samples from one copy of that prompt's keys and values, so a decoding step reads the weights once and every prompt once, not
once a sample. It serves models whose layers are all full attention with rotary positions; `packs_exactly` tests that on the
model at hand.
`ExpandedDecoder` repeats the prompt's cache for each sample and serves any causal language model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

_IMPLEMENTATION = "swe_srl_packed"
_MIN_SHARED_PREFIX = 16


class Decoder(Protocol):
    """Logits for the samples of some prompts. Row r of a step is a live sample; rows are ordered by prompt."""

    def prefill(self) -> Tensor:
        """Logits after each prompt, [prompts, vocabulary]."""
        ...

    def step(self, rows: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
        """Append one token to each live sample (prompt, sample) and return the logits after it, [rows, vocabulary].

        Every live sample has the same length; a sample left out once is finished and must not come back.
        """
        ...


class PackedDecoder:
    """Prompt keys and values stored once for all samples of the prompt; see the module's docstring."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int, max_tokens: int) -> None:
        parameter = next(model.parameters())
        self._model, self._prompts = model, prompts
        self._device, self._dtype = parameter.device, parameter.dtype
        self._capacity = [len(prompt) + n * max_tokens for prompt in prompts]
        self._length = [0] * len(prompts)
        self._keys: list[dict[int, Tensor]] = [{} for _ in prompts]
        self._values: list[dict[int, Tensor]] = [{} for _ in prompts]
        # Additive: row s is what sample s of the prompt may see, the prompt's columns first.
        self._masks = [torch.full((n, size), -math.inf, dtype=self._dtype, device=self._device) for size in self._capacity]
        self._spans: list[tuple[int, int, int, Tensor | None]] = []
        self._generated = 0

    def prefill(self) -> Tensor:
        """See `Decoder`."""
        logits = []
        for p, prompt in enumerate(self._prompts):
            shared = self._copy_shared_prefix(p)
            rest = len(prompt) - shared
            visible = torch.ones(rest, len(prompt), dtype=torch.bool, device=self._device).tril(shared) if shared else None
            self._length[p] = shared
            self._spans = [(p, 0, rest, visible)]
            logits.append(self._forward(prompt[shared:], range(shared, len(prompt)), last_only=True))
            self._length[p] = len(prompt)
            self._masks[p][:, : len(prompt)] = 0
        return torch.cat(logits)

    def step(self, rows: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        self._spans, positions, start = [], [], 0
        while start < len(rows):
            p = rows[start][0]
            live = [s for q, s in rows[start:] if q == p]
            end, length = start + len(live), self._length[p]
            columns = torch.arange(length, length + len(live), device=self._device)
            index = torch.tensor(live, device=self._device)
            self._masks[p][index, columns] = 0
            self._spans.append((p, start, end, self._masks[p][index, : length + len(live)]))
            positions += [len(self._prompts[p]) + self._generated] * len(live)
            start = end
        logits = self._forward(tokens, positions, last_only=False)
        for p, start, end, _ in self._spans:
            self._length[p] += end - start
        self._generated += 1
        return logits

    def _copy_shared_prefix(self, p: int) -> int:
        """Reuse what an earlier prompt has computed: steps of one trajectory share the problem. Returns the tokens saved."""
        prompt = self._prompts[p]
        shared = [_common_prefix(prompt, other) for other in self._prompts[:p]]
        length = min(max(shared, default=0), len(prompt) - 1)
        if length < _MIN_SHARED_PREFIX:
            return 0
        source = shared.index(max(shared))
        for store in (self._keys, self._values):
            for layer, tensor in store[source].items():
                copy = tensor.new_empty(tensor.shape[0], self._capacity[p], tensor.shape[2])
                copy[:, :length] = tensor[:, :length]
                store[p][layer] = copy
        return length

    def _forward(self, tokens: Sequence[int] | Tensor, positions: Sequence[int], *, last_only: bool) -> Tensor:
        ids = torch.as_tensor(tokens, device=self._device)[None]
        position_ids = torch.tensor(positions, device=self._device)[None]
        with _attention(self._model):
            output = self._model(
                input_ids=ids, position_ids=position_ids, use_cache=False, logits_to_keep=int(last_only), packed=self
            )
        logits: Tensor = output.logits[0]
        return logits[-1:] if last_only else logits

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attention of one layer. query [1, heads, rows, d]; key, value [1, kv heads, rows, d]; returns [1, rows, heads, d]."""
        out = []
        for p, start, end, mask in self._spans:
            keys, values = self._append(p, layer, key[0, :, start:end], value[0, :, start:end])
            q, k, v = query[:, :, start:end], keys[None], values[None]
            heads, count, d = q.shape[1:]
            repeats = heads // keys.shape[0]
            if mask is None:
                o = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=repeats > 1)
            else:
                # The query heads that share a key head become more queries of it, so that its keys are not repeated.
                q = q.reshape(1, keys.shape[0], repeats * count, d)
                o = scaled_dot_product_attention(q, k, v, attn_mask=mask.repeat(repeats, 1), scale=scaling)
            out.append(o.reshape(heads, count, -1))
        return torch.cat(out, dim=1).transpose(0, 1)[None]

    def _append(self, p: int, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        end = self._length[p] + key.shape[1]
        for store, new in ((self._keys[p], key), (self._values[p], value)):
            if layer not in store:
                store[layer] = new.new_empty(new.shape[0], self._capacity[p], new.shape[2])
            store[layer][:, self._length[p] : end] = new
        return self._keys[p][layer][:, :end], self._values[p][layer][:, :end]


class ExpandedDecoder:
    """The prompt's cache repeated for each of its samples: no assumption on the architecture beyond a transformers cache."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int, max_tokens: int) -> None:
        self._model, self._prompts = model, prompts
        self._device = next(model.parameters()).device
        self._caches: list[Any] = []
        self._live = [list(range(n)) for _ in prompts]
        self._n = n

    def prefill(self) -> Tensor:
        """See `Decoder`."""
        logits = []
        for prompt in self._prompts:
            output = self._model(input_ids=torch.tensor([list(prompt)], device=self._device), use_cache=True, logits_to_keep=1)
            output.past_key_values.batch_repeat_interleave(self._n)
            self._caches.append(output.past_key_values)
            logits.append(output.logits[:, -1])
        return torch.cat(logits)

    def step(self, rows: Sequence[tuple[int, int]], tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        logits, start = [], 0
        for p, cache in enumerate(self._caches):
            live = [s for q, s in rows if q == p]
            if live != self._live[p]:
                kept = [self._live[p].index(s) for s in live]
                cache.batch_select_indices(torch.tensor(kept, dtype=torch.long, device=self._device))
                self._live[p] = live
            if live:
                column = tokens[start : start + len(live), None]
                logits.append(self._model(input_ids=column, past_key_values=cache, use_cache=True).logits[:, -1])
                start += len(live)
        return torch.cat(logits)


def packs_exactly(model: Any, prompt: Sequence[int]) -> bool:
    """Whether `PackedDecoder` serves this model: no layer but full attention, and log-probabilities equal to a plain forward's.

    Two samples of two tokens after a short prompt are compared, to 1e-3 in float32 and 0.25 in a half precision.
    """
    config = model.config.get_text_config()
    layer_types = getattr(config, "layer_types", None)
    if layer_types is None and getattr(config, "sliding_window", None) is not None:
        return False
    if any(kind != "full_attention" for kind in layer_types or ()) or not getattr(model, "_supports_attention_backend", False):
        return False
    decoder = PackedDecoder(model, [prompt, prompt], 2, 2)
    try:
        first = decoder.prefill()[1].topk(2).indices
        logits = decoder.step([(0, 0), (1, 0), (1, 1)], first[[0, 0, 1]])
        second = logits.argmax(-1)
        logits = decoder.step([(0, 0), (1, 1)], second[[0, 2]])
    except _UnsupportedAttentionError:
        return False
    plain = [[*prompt, int(first[s]), int(second[row])] for s, row in ((0, 0), (1, 2))]
    expected = model(input_ids=torch.tensor(plain, device=first.device), use_cache=False).logits[:, -1]
    tolerance = 1e-3 if expected.dtype == torch.float32 else 0.25
    difference = (logits.float().log_softmax(-1) - expected.float().log_softmax(-1)).abs().max()
    return bool(difference <= tolerance)


class _UnsupportedAttentionError(Exception):
    """A layer asks for something that packed attention does not compute."""


def _packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed: PackedDecoder | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    for name in ("sliding_window", "softcap", "s_aux", "position_bias"):
        if kwargs.get(name) is not None:
            raise _UnsupportedAttentionError(name)
    if packed is None:
        raise _UnsupportedAttentionError("the model does not hand keyword arguments down to its attention")
    return packed.attend(module.layer_idx, query, key, value, scaling), None


@contextmanager
def _attention(model: Any) -> Iterator[None]:
    """Packed attention inside, whatever the model used before it outside."""
    from transformers import AttentionInterface

    AttentionInterface.register(_IMPLEMENTATION, _packed_attention)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.config._attn_implementation
    inner.set_attn_implementation(_IMPLEMENTATION)
    try:
        yield
    finally:
        inner.set_attn_implementation(before)


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
