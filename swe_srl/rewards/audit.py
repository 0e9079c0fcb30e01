"""What rewards say of answers whose worth is known, or of answers that were sampled: `swe-srl audit`.

Invariant: every answer is scored under every reward alone, and an unscored one counts nowhere but as unscored.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from statistics import StatisticsError, correlation, fmean, pstdev, quantiles
from typing import Any

from swe_srl.policy.format import render_action
from swe_srl.rewards.compose import Rewards, Sampled
from swe_srl.rewards.controls import KINDS, controls
from swe_srl.rewards.reward import Part, RewardedAnswer
from swe_srl.rewards.validity import INVALID
from swe_srl.scaffolds import get_scaffold, is_scaffold
from swe_srl.trajectories.model import Step, Trajectory

SHOWN = 20
"""Largest disagreements that are kept."""
_SHOWN_CHARACTERS = 4000
EPSILON = 0.01
"""A group whose rewards' population std is no more teaches nothing; the default of dynamic sampling."""


@dataclass(frozen=True, slots=True)
class Audited:
    """One answer under every reward."""

    step: str
    kind: str
    """The kind of control; `sample` for a sampled answer."""
    expert: str
    action: str
    error: str | None
    values: Mapping[str, float | None]
    """By reward; −1 for an invalid answer, None where it is unscored."""
    unscored: Mapping[str, str] = field(default_factory=dict)
    """By reward, why there is no value."""


def eligible(trajectories: Iterable[Trajectory]) -> Iterator[Step]:
    """The steps that an answer can be given to: one call, that can be written, of a scaffold that is known."""
    for trajectory in trajectories:
        if not is_scaffold(trajectory.scaffold):
            continue
        for step in trajectory.steps():
            try:
                step.action.call  # noqa: B018  # raises for several
                render_action(step.action)
            except ValueError:
                continue
            yield step


def audit_controls(
    steps: Sequence[Step],
    others: Sequence[Step],
    parts: Mapping[str, Part],
    seed: int = 0,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Audited]:
    """The controls of each step under each reward.

    others: steps from which another run's action is drawn.
    progress: called with each reward's name before it scores.
    """
    made = [(step, kind, text) for step in steps for kind, text in _controls(step, others, seed)]
    return _audited([(step, kind, text, "stop") for step, kind, text in made], parts, progress)


def audit_samples(
    groups: Iterable[Mapping[str, Any]],
    steps: Mapping[str, Step],
    parts: Mapping[str, Part],
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[list[Audited], list[str]]:
    """The samples of a run's groups under each reward, and the ids of groups whose step is not among `steps`."""
    known, unknown = [], []
    for group in groups:
        if (step := steps.get(str(group["step"]))) is None:
            unknown.append(str(group["step"]))
        else:
            known += [(step, "sample", str(sample["text"]), str(sample["finish"])) for sample in group["samples"]]
    return _audited(known, parts, progress), unknown


def summary(audited: Sequence[Audited]) -> dict[str, Any]:
    """Everything `swe-srl audit --json` prints."""
    names = list(audited[0].values) if audited else []
    kinds = [kind for kind in (*KINDS, "sample") if any(answer.kind == kind for answer in audited)]
    return {
        "steps": len({answer.step for answer in audited}),
        "answers": len(audited),
        "distributions": [
            {"reward": name, "kind": kind, **_distribution([a.values[name] for a in audited if a.kind == kind])}
            for name in names
            for kind in kinds
        ],
        "zero_variance_share": {name: _zero_variance(audited, name) for name in names},
        "orders": [{"reward": name, **_orders(audited, name)} for name in names] if "sample" not in kinds else [],
        "correlation": [
            {"rewards": [one, two], "pearson": _correlation(audited, one, two)} for one, two in combinations(names, 2)
        ],
        "unscored_because": dict(Counter(reason for answer in audited for reason in answer.unscored.values())),
        "disagreements": disagreements(audited),
    }


def disagreements(audited: Sequence[Audited], most: int = SHOWN) -> list[dict[str, Any]]:
    """The valid answers on which two rewards differ most, one a step, largest first."""
    largest: dict[str, tuple[float, Audited, tuple[str, str]]] = {}
    for answer in audited:
        if answer.error is not None:
            continue
        for one, two in combinations(answer.values, 2):
            first, second = answer.values[one], answer.values[two]
            if first is None or second is None:
                continue
            gap = abs(first - second)
            if answer.step not in largest or gap > largest[answer.step][0]:
                largest[answer.step] = (gap, answer, (one, two))
    ordered = sorted(largest.values(), key=lambda found: (-found[0], found[1].step))[:most]
    return [
        {
            "step": answer.step,
            "kind": answer.kind,
            "rewards": {name: answer.values[name] for name in pair},
            "expert": answer.expert[:_SHOWN_CHARACTERS],
            "action": answer.action[:_SHOWN_CHARACTERS],
        }
        for _, answer, pair in ordered
    ]


def _controls(step: Step, others: Sequence[Step], seed: int) -> Iterator[tuple[str, str]]:
    rng = random.Random(f"{seed}/{step.id}")
    for kind, texts in controls(step, others, rng).items():
        for text in texts:
            yield kind, text


def _audited(
    answers: Sequence[tuple[Step, str, str, str]], parts: Mapping[str, Part], progress: Callable[[str], None]
) -> list[Audited]:
    sampled = [Sampled(step, text, finish, get_scaffold(step.trajectory.scaffold).tools) for step, _, text, finish in answers]
    by_reward: dict[str, list[RewardedAnswer]] = {}
    for name, part in parts.items():
        progress(name)
        by_reward[name] = Rewards({name: (1.0, part)}).score(sampled)
    first = next(iter(by_reward.values()))
    return [
        Audited(
            step.id,
            kind,
            render_action(step.action),
            first[index].answer.action_text,
            first[index].answer.error,
            {name: found[index].reward for name, found in by_reward.items()},
            {name: reason for name, found in by_reward.items() if (reason := found[index].unscored) is not None},
        )
        for index, (step, kind, _, _) in enumerate(answers)
    ]


def _distribution(values: Sequence[float | None]) -> dict[str, Any]:
    """Count, unscored, share of invalid ones, and mean and quartiles of the valid."""
    valid = [value for value in values if value is not None and value != INVALID]
    cuts = quantiles(valid, n=4, method="inclusive") if len(valid) > 1 else valid * 3
    return {
        "n": len(values),
        "unscored": sum(value is None for value in values),
        "invalid": sum(value == INVALID for value in values),
        "mean": fmean(valid) if valid else None,
        **dict(zip(("q25", "median", "q75"), cuts or (None, None, None), strict=True)),
        "zero": sum(value == 0.0 for value in valid) / len(valid) if valid else None,
        "one": sum(value == 1.0 for value in valid) / len(valid) if valid else None,
    }


def _by_step(audited: Sequence[Audited], name: str) -> dict[str, dict[str, list[float]]]:
    """step → kind → the values that were found."""
    found: dict[str, dict[str, list[float]]] = {}
    for answer in audited:
        if (value := answer.values[name]) is not None:
            found.setdefault(answer.step, {}).setdefault(answer.kind, []).append(value)
    return found


def _zero_variance(audited: Sequence[Audited], name: str) -> float | None:
    """The share of steps whose values do not differ: of all samples; of the controls that are neither expert's nor forged."""
    groups = [
        [value for kind, values in kinds.items() if kind not in ("expert", "forged") for value in values]
        for kinds in _by_step(audited, name).values()
    ]
    groups = [values for values in groups if len(values) > 1]
    return fmean(pstdev(values) <= EPSILON for values in groups) if groups else None


def _orders(audited: Sequence[Audited], name: str) -> dict[str, Any]:
    """How often kinds come in the order of their worth. Of several forged answers the best counts: the one that would win."""
    steps = [{kind: max(values) for kind, values in kinds.items()} for kinds in _by_step(audited, name).values()]
    found: dict[str, Any] = {}
    for one, two in pairwise(KINDS):
        sign = "≥" if one == "expert" else ">"
        pairs = [(kinds[one], kinds[two]) for kinds in steps if one in kinds and two in kinds]
        held = [first >= second if sign == "≥" else first > second for first, second in pairs]
        found[f"{one} {sign} {two}"] = fmean(held) if held else None
        found[f"{one} < {two}"] = fmean(first < second for first, second in pairs) if pairs else None
    whole = [[kinds[kind] for kind in KINDS] for kinds in steps if len(kinds) == len(KINDS)]
    held = [a >= b > c > d > e for a, b, c, d, e in whole]
    return {**found, "all": fmean(held) if held else None, "steps_with_all": len(whole)}


def _correlation(audited: Sequence[Audited], one: str, two: str) -> float | None:
    pairs = [(a.values[one], a.values[two]) for a in audited if a.error is None]
    both = [(x, y) for x, y in pairs if x is not None and y is not None]
    try:
        return correlation([x for x, _ in both], [y for _, y in both])
    except StatisticsError:  # fewer than two, or one that never varies
        return None
