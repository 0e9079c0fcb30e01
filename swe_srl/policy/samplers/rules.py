"""What every sampler does alike, so that engines can be exchanged: where an answer ends, what its text is, what is refused.

Invariant: pure; no torch, no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swe_srl.errors import UserError
from swe_srl.policy.base import Sample
from swe_srl.policy.prompts import end_of_turn_id


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the chat template's end of turn and whatever the model's generation settings name."""
    named = getattr(model, "generation_config", None) and model.generation_config.eos_token_id
    ids = {end_of_turn_id(tokenizer), tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return frozenset(i for i in ids if i is not None)


def finished_sample(
    tokenizer: Any, ids: Sequence[int], logprobs: Sequence[float], *, stopped: bool, stop: Sequence[str]
) -> Sample:
    """The sample that `ids` are; `stopped` says that an end id or a stop string ended it, rather than the limit."""
    text: str = tokenizer.decode(ids, skip_special_tokens=True)
    # The token that completes a stop string may hold a few characters more; the ids keep them, the text ends at the string.
    ends = [text.index(s) + len(s) for s in stop if s in text]
    return Sample(tuple(ids), tuple(logprobs), text[: min(ends)] if ends else text, "stop" if stopped else "length")


def check_lengths(prompts: Sequence[Sequence[int]], max_tokens: int, limit: int | None) -> None:
    """Raise UserError for a prompt that leaves less than `max_tokens` of a context of `limit` tokens (None: unknown).

    Raises ValueError for a prompt without tokens.
    """
    if not prompts:
        return
    longest = max(map(len, prompts))
    if limit is not None and longest + max_tokens > limit:
        raise UserError(
            f"a prompt of {longest} tokens and max_tokens = {max_tokens} exceed the model's context of {limit}: "
            "lower max_prompt_tokens or max_tokens"
        )
    if not all(prompts):
        raise ValueError("a prompt without tokens cannot be continued")
