"""What an answer earned, and the paper's own reward of one: similarity of its action to the expert's, -1 for a broken format.

Invariant: the thought is never rewarded, and nothing but a valid, complete answer gets more than `INVALID`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swe_srl.policy.format import Answer, parse_answer, render_action
from swe_srl.rewards.text import similarity
from swe_srl.rewards.validity import INVALID
from swe_srl.trajectories.model import Step


@dataclass(frozen=True, slots=True)
class RewardedAnswer:
    """An answer and what it earned."""

    answer: Answer
    reward: float | None
    """None where it could not be scored: the answer is then left out of the loss, and counted."""
    similarity: float | None
    """The paper's, in [0, 1], whatever the reward is; None for an invalid answer."""
    parts: Mapping[str, float | None] = field(default_factory=dict)
    """Each reward of a composition before its weight, by name; empty for an invalid answer."""
    unscored: str | None = None
    """Why there is no reward."""


@dataclass(frozen=True, slots=True)
class Unscored:
    """A value that could not be found, and why."""

    reason: str


Part = Callable[[Sequence[tuple[Step, Answer]]], Sequence[float | Unscored]]
"""One reward of a composition: the values of valid answers at their steps, each in [0, 1]."""


def score_answer(step: Step, text: str, finish: str, tools: Sequence[Mapping[str, Any]]) -> RewardedAnswer:
    """The paper's reward of a sampled answer at an expert's step.

    Compared are the expert's action as `render_action` writes it and the sample's action as the policy wrote it. `finish` is
    the sample's: an answer cut at the length limit is invalid. Raises ValueError where the expert's action cannot be written.
    """
    expert = render_action(step.action)
    answer = parse_answer(text, tools, truncated=finish == "length")
    if answer.error is not None:
        return RewardedAnswer(answer, INVALID, None)
    value = similarity(expert, answer.action_text)
    return RewardedAnswer(answer, value, value, {"similarity": value})
