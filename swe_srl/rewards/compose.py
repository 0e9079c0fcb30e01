"""The rewards of a recipe, weighted and added up.

Invariant: a valid answer's reward depends on its action alone, an invalid one's on the kind of its error alone. Where one part
cannot be scored the whole is not: no reward is made up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from swe_srl.config import FunctionalReward, RewardsSection, SimilarityReward
from swe_srl.policy.format import Answer, parse_answer, render_action
from swe_srl.rewards.arguments import arguments_similarity
from swe_srl.rewards.functional import functional
from swe_srl.rewards.reward import Part, RewardedAnswer, Unscored
from swe_srl.rewards.text import similarities
from swe_srl.rewards.validity import Invalid, invalid_reward
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step

if TYPE_CHECKING:
    from swe_srl.environments.nodes import Nodes


@dataclass(frozen=True, slots=True)
class Sampled:
    """An answer to score: what was sampled at an expert's step."""

    step: Step
    text: str
    finish: str
    tools: Sequence[Mapping[str, Any]]


class Rewards:
    """Scores answers by a weighted sum of rewards."""

    def __init__(self, parts: Mapping[str, tuple[float, Part]], invalid: Invalid = "minus-one") -> None:
        """parts: weight and reward, by name."""
        self._parts, self._invalid = parts, invalid

    def score(self, sampled: Sequence[Sampled]) -> list[RewardedAnswer]:
        """One result an answer. Raises ValueError where an expert's action cannot be written."""
        answers = [parse_answer(s.text, s.tools, truncated=s.finish == "length") for s in sampled]
        valid = [(s.step, answer) for s, answer in zip(sampled, answers, strict=True) if answer.action is not None]
        texts = [(render_action(step.action), answer.action_text) for step, answer in valid]
        rows = zip(similarities(texts), zip(*(part(valid) for _, part in self._parts.values()), strict=True), strict=True)
        return [
            RewardedAnswer(answer, broken, None)
            if (broken := invalid_reward(answer, self._invalid)) is not None
            else self._add_up(answer, *next(rows))
            for answer in answers
        ]

    def _add_up(self, answer: Answer, paper: float, values: Sequence[float | Unscored]) -> RewardedAnswer:
        found = dict(zip(self._parts, values, strict=True))
        parts = {name: None if isinstance(value, Unscored) else value for name, value in found.items()}
        missing = [f"{name}: {value.reason}" for name, value in found.items() if isinstance(value, Unscored)]
        if missing:
            return RewardedAnswer(answer, None, paper, parts, missing[0])
        total = sum(self._parts[name][0] * value for name, value in parts.items() if value is not None)
        return RewardedAnswer(answer, total, paper, parts)


def build_rewards(section: RewardsSection, nodes: Nodes | None = None) -> Rewards:
    """The rewards of a recipe, actions executed on `nodes` or here.

    Raises UserError where one cannot be had, such as effects without a Docker daemon.
    """
    parts: dict[str, tuple[float, Part]] = {}
    if (text := section.similarity) is not None:
        parts["similarity"] = (text.weight, similarity_part(text))
    if (meaning := section.functional) is not None:
        parts["functional"] = (meaning.weight, functional_part(meaning))
    if (effect := section.effect) is not None:
        from swe_srl.rewards.executing import effect_part

        parts["effect"] = (effect.weight, effect_part(effect, nodes=nodes))
    return Rewards(parts, section.invalid)


def similarity_part(options: SimilarityReward) -> Part:
    """Text similarity with its options."""
    given: dict[str, Any] = {"unit": options.unit, "autojunk": options.autojunk, "cap": options.cap}

    def score(pairs: Sequence[tuple[Step, Answer]]) -> Sequence[float]:
        if options.compare == "arguments":
            return [arguments_similarity(step.action, _action(answer), **given) for step, answer in pairs]
        texts = [(render_action(step.action), answer.action_text) for step, answer in pairs]
        return similarities(texts, processes=options.processes, **given)

    return score


def functional_part(options: FunctionalReward) -> Part:
    """Functional equivalence with its options."""
    return lambda pairs: [
        functional(step.action, _action(answer), threshold=options.threshold, workdir=_workdir(step)) for step, answer in pairs
    ]


def part_metrics(scored: Sequence[RewardedAnswer]) -> dict[str, Any]:
    """The mean of each part over the answers that have it, and how many answers are unscored, by reason."""
    names = dict.fromkeys(name for answer in scored for name in answer.parts)
    values = {name: [v for answer in scored if (v := answer.parts.get(name)) is not None] for name in names}
    reasons = Counter(answer.unscored for answer in scored if answer.unscored is not None)
    return {
        "reward_by_part": {name: fmean(found) if found else None for name, found in values.items()},
        "unscored": sum(reasons.values()),
        "unscored_because": dict(sorted(reasons.items())),
    }


def _action(answer: Answer) -> Action:
    assert answer.action is not None, "only valid answers are scored"
    return answer.action


def _workdir(step: Step) -> str:
    return step.trajectory.workdir or "/testbed"
