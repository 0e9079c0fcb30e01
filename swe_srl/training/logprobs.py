"""Log-probabilities of answers under the policy, and the gradient of a loss over them.

Invariant: an `Engine` accumulates exactly the gradient of the mean loss over the examples, however it cuts the work up. The
engine here runs separate right-padded sequences; it works for every causal model and is what others are checked against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """One answer to learn from: exactly the ids that were served and sampled (or the expert's)."""

    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    advantage: float = 1.0

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.answer_ids:
            raise ValueError("an example needs at least one prompt token and one answer token")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.answer_ids)


LossFn = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logprobs_B_T, mask_B_T, advantages_B) -> loss_B."""


@dataclass(frozen=True, slots=True)
class BackwardResult:
    """What one backward over a batch came to."""

    loss: float
    """Mean over examples."""
    answer_tokens: int
    """Tokens that were scored."""
    forward_tokens: int
    """Tokens that went through the model, padding included; those that went twice count twice."""
    separate_tokens: int
    """Tokens of the examples as sequences of their own, without padding."""
    mean_logprob: float
    """Mean over scored tokens; its negative estimates the entropy of the policy on its own samples."""


class Engine(Protocol):
    """Something that turns a batch of examples into accumulated gradients."""

    def backward(self, model: Any, examples: Sequence[Example], loss_fn: LossFn) -> BackwardResult:
        """Add the gradient of the mean of `loss_fn` over the examples to the model's parameters."""
        ...


def sequence_logprobs(
    model: Any, prompt_ids: Sequence[Sequence[int]], answer_ids: Sequence[Sequence[int]], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of each answer's tokens after its prompt, under softmax(logits / temperature).

    Sequences are padded on the right, so positions and causal masks are those of each sequence alone. The model computes logits
    only over the span in which some answer is scored; the softmax runs only at scored positions, in float32.

    Args:
        model: a transformers causal language model.
        prompt_ids: B prompts of at least one token each.
        answer_ids: B answers of at least one token each.
        temperature: above 0; the one the answers were sampled at.

    Returns:
        logprobs_B_T (0 at padding) and mask_B_T, with T the longest answer.
    """
    device = next(model.parameters()).device
    lengths = [(len(prompt), len(answer)) for prompt, answer in zip(prompt_ids, answer_ids, strict=True)]
    first = min(prompt for prompt, _ in lengths) - 1
    last = max(prompt + answer for prompt, answer in lengths) - 1
    B, T = len(lengths), max(answer for _, answer in lengths)
    ids_B_L = torch.zeros(B, last + 1, dtype=torch.long)
    attention_B_L = torch.zeros(B, last + 1, dtype=torch.long)
    targets_B_T = torch.zeros(B, T, dtype=torch.long)
    mask_B_T = torch.zeros(B, T, dtype=torch.bool)
    scored_B_S = torch.zeros(B, last - first, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(lengths):
        ids_B_L[row, : prompt + answer] = torch.tensor([*prompt_ids[row], *answer_ids[row]])
        attention_B_L[row, : prompt + answer] = 1
        targets_B_T[row, :answer] = torch.tensor(list(answer_ids[row]))
        mask_B_T[row, :answer] = True
        scored_B_S[row, prompt - 1 - first : prompt + answer - 1 - first] = True
    ids_B_L, attention_B_L, targets_B_T, mask_B_T, scored_B_S = (
        tensor.to(device) for tensor in (ids_B_L, attention_B_L, targets_B_T, mask_B_T, scored_B_S)
    )
    span_S = torch.arange(first, last, device=device)
    logits_B_S_V = model(input_ids=ids_B_L, attention_mask=attention_B_L, logits_to_keep=span_S, use_cache=False).logits
    # Both masks are true once for each answer token, row by row in order, so the flat values line up.
    logits_N_V = logits_B_S_V[scored_B_S].float() / temperature
    flat_N = torch.log_softmax(logits_N_V, -1).gather(1, targets_B_T[mask_B_T].unsqueeze(1)).squeeze(1)
    return torch.zeros(B, T, device=device).masked_scatter(mask_B_T, flat_N), mask_B_T


def microbatches(examples: Sequence[Example], max_tokens: int) -> Iterator[list[Example]]:
    """Cut a batch into runs of similar length whose padded size stays within `max_tokens`; one longer example goes alone."""
    chunk: list[Example] = []
    longest = 0
    for example in sorted(examples, key=lambda example: (len(example.prompt_ids), len(example))):
        longest = max(longest, len(example))
        if chunk and (len(chunk) + 1) * longest > max_tokens:
            yield chunk
            chunk, longest = [], len(example)
        chunk.append(example)
    if chunk:
        yield chunk


@dataclass(frozen=True, slots=True)
class SequenceEngine:
    """Every example as a sequence of its own."""

    tokens_per_microbatch: int
    temperature: float = 1.0

    def backward(self, model: Any, examples: Sequence[Example], loss_fn: LossFn) -> BackwardResult:
        """See `Engine`."""
        loss = logprob_sum = 0.0
        answer_tokens = forward_tokens = 0
        for chunk in microbatches(examples, self.tokens_per_microbatch):
            logprobs_B_T, mask_B_T = sequence_logprobs(
                model, [e.prompt_ids for e in chunk], [e.answer_ids for e in chunk], self.temperature
            )
            advantages_B = torch.tensor([e.advantage for e in chunk], device=logprobs_B_T.device)
            chunk_loss = loss_fn(logprobs_B_T, mask_B_T, advantages_B).sum() / len(examples)
            chunk_loss.backward()  # type: ignore[no-untyped-call]
            loss += chunk_loss.item()
            logprob_sum += logprobs_B_T.detach().sum().item()
            answer_tokens += int(mask_B_T.sum())
            forward_tokens += len(chunk) * max(map(len, chunk))
        return BackwardResult(
            loss=loss,
            answer_tokens=answer_tokens,
            forward_tokens=forward_tokens,
            separate_tokens=sum(map(len, examples)),
            mean_logprob=logprob_sum / max(1, answer_tokens),
        )
