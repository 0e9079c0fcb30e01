"""The seam between what asks for samples and what generates them.

Invariant: token ids are the truth. A sampler gets prompt token ids and returns the ids it generated with their
log-probabilities; nothing is ever re-tokenised from text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from swe_srl.errors import UserError


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How samples are drawn."""

    n: int = 1
    """Samples for each prompt (the group size G)."""
    temperature: float = 1.0
    """0 means greedy."""
    max_tokens: int = 512
    """Longest sample, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end a sample; kept in the sample."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer."""

    token_ids: tuple[int, ...]
    """The generated ids, the end-of-turn token included where it was generated."""
    logprobs: tuple[float, ...]
    """Log-probability of each generated id under the sampler's distribution at the sampling temperature."""
    text: str
    """The ids decoded without special tokens."""
    finish: Literal["stop", "length"]
    """`length` when the sample was cut at `max_tokens`."""


class CanSample(Protocol):
    """What those need who only ask for samples."""

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """For each prompt of token ids, `options.n` samples, in the order of the prompts."""
        ...


class Sampler(CanSample, Protocol):
    """Something that continues prompts with the current policy."""

    def update_weights(self, checkpoint: Path | None) -> None:
        """Serve new weights from the next `sample` on: a saved model folder's, or with None the trainer's model's of then."""
        ...

    def take_weights(self) -> None:
        """Serve what `update_weights` named now rather than with the next `sample`: then the trainer's model may change."""
        ...

    def report(self) -> dict[str, Any]:
        """What samples took of the engines since this was last asked, for the metrics; empty where there is nothing to say."""
        ...

    def close(self) -> None:
        """Let go of whatever runs for the sampler. Closing twice is closing once."""
        ...


class SamplerLost(UserError):
    """The engine or server behind a sampler has ended or failed. The policy is as it was; the samples asked for are lost."""
