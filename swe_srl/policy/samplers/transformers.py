"""A sampler on a transformers model that the trainer holds in memory: no server, no copy of the weights.

Invariant: `token_ids` are exactly the ids drawn, and `logprobs` are theirs under the distribution they were drawn from (no
top-k, no top-p). A sample depends on the weights, its prompt, its place in the call and the seed; what it is batched with
changes nothing but rounding.

torch is imported with this module; import it only where a model is at hand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers.decoding import Decoder, ExpandedDecoder, PackedDecoder, packs_exactly
from swe_srl.policy.samplers.rules import check_lengths, end_ids, finished_sample

_log = logging.getLogger(__name__)
_CHECK_TOKENS = 64
BATCH_TOKENS = 32_768
"""What is sampled together, in tokens, unless a sampler is told otherwise."""


class TransformersSampler:
    """Implements `swe_srl.policy.base.Sampler`. Prompts are computed once for all their samples, and batched."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_tokens: int = BATCH_TOKENS,
        packed: bool | None = None,
        ends: frozenset[int] | None = None,
    ) -> None:
        """`batch_tokens` bounds the tokens (prompts + n · max_tokens of each) whose keys and values are held at a time.

        `packed` chooses between the two decoders of `swe_srl.policy.samplers.decoding`; None tests the packed one on the first
        prompt and falls back, with a warning, where it does not reproduce the model. `ends`: ids that end an answer; None: the
        tokenizer's and the model's.
        """
        self._model, self._tokenizer = model, tokenizer
        self._batch_tokens, self._packed = batch_tokens, packed
        self._ends = end_ids(model, tokenizer) if ends is None else ends

    def sample(
        self, prompts: Sequence[Sequence[int]], options: SamplingOptions, places: Sequence[int] | None = None
    ) -> list[list[Sample]]:
        """For each prompt `options.n` samples, in the order of the prompts.

        At temperature 0 the log-probabilities are those of temperature 1, since greedy choice has none. `places`: where these
        prompts stand in the call that they are a part of; None: they are the whole call. Raises UserError for a prompt that
        leaves less than `options.max_tokens` of the model's context.
        """
        check_lengths(prompts, options.max_tokens, self.context)
        chosen = list(range(len(prompts)) if places is None else places)
        generator = torch.Generator().manual_seed(options.seed)
        # Drawn in the order of the places: a part of a call draws what the whole would have drawn for it.
        shape = (max(chosen, default=-1) + 1, options.n, options.max_tokens)
        uniforms = torch.rand(shape, generator=generator, dtype=torch.float64)[chosen]
        samples: dict[int, list[Sample]] = {}
        with _inference(self._model):
            for batch in batches(prompts, options, self._batch_tokens):
                drawn = self._decode([prompts[i] for i in batch], uniforms[batch], options)
                samples.update(zip(batch, drawn, strict=True))
        return [samples[i] for i in range(len(prompts))]

    @property
    def context(self) -> int | None:
        """Longest prompt and answer together, in tokens; None: the model does not say."""
        limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        return limit

    def update_weights(self, checkpoint: Path | None) -> None:
        """Nothing to do: the model is the trainer's own. Raises ValueError for a checkpoint, which would be ignored."""
        if checkpoint is not None:
            raise ValueError(f"this sampler shares the trainer's model and cannot load {checkpoint}")

    def take_weights(self) -> None:
        """Nothing to do: the model is the trainer's own."""

    def report(self) -> dict[str, Any]:
        """Nothing to say: there is no engine."""
        return {}

    def close(self) -> None:
        """Nothing to do: the model is the trainer's own."""

    def _decoder(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> Decoder:
        if self._packed is None:
            self._packed = packs_exactly(self._model, prompts[0][:_CHECK_TOKENS])
            if not self._packed:
                _log.warning("packed sampling does not reproduce this model; each sample gets its own cache, which is slower")
        kind = PackedDecoder if self._packed else ExpandedDecoder
        return kind(self._model, prompts, options.n, options.max_tokens)

    def _decode(self, prompts: Sequence[Sequence[int]], uniforms: Tensor, options: SamplingOptions) -> list[list[Sample]]:
        """Samples of one batch; `uniforms` [prompts, n, max_tokens] are the random numbers they are drawn with."""
        decoder = self._decoder(prompts, options)
        rows = [(p, s) for p in range(len(prompts)) for s in range(options.n)]
        ids: dict[tuple[int, int], list[int]] = {row: [] for row in rows}
        logprobs: dict[tuple[int, int], list[float]] = {row: [] for row in rows}
        finished: set[tuple[int, int]] = set()
        logits = decoder.prefill().repeat_interleave(options.n, dim=0)
        for t in range(options.max_tokens):
            numbers = torch.stack([uniforms[p, s, t] for p, s in rows])
            tokens, chosen = draw(logits, numbers, options.temperature)
            for row, token, logprob in zip(rows, tokens.tolist(), chosen.tolist(), strict=True):
                ids[row].append(token)
                logprobs[row].append(logprob)
                if token in self._ends or self._completes_stop(ids[row], options.stop):
                    finished.add(row)
            live = [i for i, row in enumerate(rows) if row not in finished]
            if not live or t == options.max_tokens - 1:
                break
            rows = [rows[i] for i in live]
            logits = decoder.step(rows, tokens[torch.tensor(live, device=tokens.device)])
        return [
            [
                finished_sample(self._tokenizer, ids[p, s], logprobs[p, s], stopped=(p, s) in finished, stop=options.stop)
                for s in range(options.n)
            ]
            for p in range(len(prompts))
        ]

    def _completes_stop(self, ids: list[int], stop: tuple[str, ...]) -> bool:
        """Whether the last token completed a stop string, given that none before it did."""
        if not stop:
            return False
        # Every token holds at least one byte, but for special ones: a few more tokens than bytes hold the whole stop string.
        tail = ids[-max(len(s.encode()) for s in stop) - 4 :]
        text = self._tokenizer.decode(tail, skip_special_tokens=True)
        return any(s in text for s in stop)


def batches(prompts: Sequence[Sequence[int]], options: SamplingOptions, batch_tokens: int) -> list[list[int]]:
    """Indices of the prompts that are sampled together, longest first: at most so many tokens, or one prompt."""
    found: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        size = len(prompts[i]) + options.n * options.max_tokens
        if not found or tokens + size > batch_tokens:
            found.append([])
            tokens = 0
        found[-1].append(i)
        tokens += size
    return found


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution.

    `logits` [rows, vocabulary], `uniforms` [rows] in [0, 1). Returns the tokens and their log-probabilities (float32), [rows]
    each. Temperature 0 takes the most likely token and gives its log-probability at temperature 1.
    """
    logprobs = (logits.float() / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        tokens = logprobs.argmax(-1)
    else:
        # float64: in float32 the running sum over a large vocabulary loses the unlikely tokens.
        cumulative = logprobs.double().exp().cumsum(-1)
        numbers = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, numbers, right=True)[:, 0].clamp_(max=logits.shape[-1] - 1)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


@contextmanager
def _inference(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients; training mode is restored."""
    training = model.training
    model.eval()
    try:
        # Not inference_mode: what a model caches inside (rotary tables) must stay usable in training.
        with torch.no_grad():
            yield
    finally:
        model.train(training)
