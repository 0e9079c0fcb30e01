"""The reward of one answer: similarity of its action to the expert's, -1 for an answer that breaks the format.

Invariant: the thought is never rewarded, and nothing but a valid, complete answer gets more than `INVALID`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_srl.policy.format import Answer, parse_answer, render_action
from swe_srl.rewards.text import similarity
from swe_srl.trajectories.model import Step

INVALID = -1.0
"""Reward of an invalid answer (arXiv 2510.25992)."""


@dataclass(frozen=True, slots=True)
class RewardedAnswer:
    """An answer and what it earned."""

    answer: Answer
    reward: float
    """`similarity` for a valid answer, else `INVALID`."""
    similarity: float | None
    """In [0, 1]; None for an invalid answer."""


def score_answer(step: Step, text: str, finish: str, tools: Sequence[Mapping[str, Any]]) -> RewardedAnswer:
    """Reward a sampled answer at an expert's step.

    Compared are the expert's action as `render_action` writes it and the sample's action as the policy wrote it. `finish` is
    the sample's: an answer cut at the length limit is invalid. Raises ValueError where the expert's action cannot be written.
    """
    expert = render_action(step.action)
    answer = parse_answer(text, tools, truncated=finish == "length")
    if answer.error is not None:
        return RewardedAnswer(answer, INVALID, None)
    value = similarity(expert, answer.action_text)
    return RewardedAnswer(answer, value, value)
