"""Evaluate a policy on held-out expert steps: given the expert's context, does it do what the expert did?

Invariant: every step given is in the result, either with its samples or among `skipped` with the reason. Intervals resample
steps, never samples, because the samples of a step are not independent. Nothing is executed unless effects are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from swe_srl.policy.base import CanSample, Sample, SamplingOptions
from swe_srl.policy.encoding import StepEncoder
from swe_srl.policy.format import render_action
from swe_srl.policy.prompts import PromptOptions, PromptTooLongError
from swe_srl.rewards import INVALID, functional, score_answer
from swe_srl.rewards.functional import same_targets
from swe_srl.rewards.reward import Unscored
from swe_srl.rollouts.estimates import Estimate, bootstrap
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step

_STEPS_A_CALL = 16

Tools = Sequence[Mapping[str, Any]]
Effects = Callable[[Sequence[tuple[Step, Action]]], Sequence[float | Unscored]]
"""The effect reward of each action at its step."""


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One sampled answer and its marks."""

    text: str
    valid: bool
    error: str | None
    similarity: float | None
    """To the expert's action; None when invalid."""
    tool_correct: bool
    """The answer is valid and calls the tool that the expert called."""
    reward: float
    finish: str
    tokens: int
    target_correct: bool = False
    """The answer is valid and works on what the expert worked on: the same files, or programs that are run."""
    functional: float | None = None
    """Functional equivalence to the expert's action; None when invalid."""
    effect: float | None = None
    """How alike what it did is; None when invalid, unscored or not asked for."""
    unscored: str | None = None
    """Why there is no effect of a valid answer, where effects were asked for."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step and what was sampled there."""

    id: str
    prompt_tokens: int
    expert_action: str
    samples: tuple[SampleRecord, ...]
    tool: str
    """That the expert called; of several calls, their names joined by +."""
    position: float
    """k of the trajectory's steps, as a share in [0, 1)."""


@dataclass(frozen=True, slots=True)
class StepEvaluation:
    """Marks of a policy on expert steps. Estimates are None where there is nothing to average."""

    n: int
    """Steps evaluated."""
    format_validity: Estimate | None
    mean_reward: Estimate | None
    mean_similarity: Estimate | None
    """Over all samples, an invalid one counting 0."""
    mean_similarity_valid: Estimate | None
    """Over the valid samples only."""
    tool_accuracy: Estimate | None
    """Share of samples that call the expert's tool, an invalid one counting as wrong."""
    steps: tuple[StepRecord, ...]
    skipped: Mapping[str, str]
    """Steps that could not be evaluated, by id: a prompt that is too long, an action that the answer format cannot hold."""
    target_accuracy: Estimate | None = None
    """Share of samples that work on the files the expert worked on, an invalid one counting as wrong."""
    mean_functional: Estimate | None = None
    """Over all samples, an invalid one counting 0."""
    mean_effect: Estimate | None = None
    """Over all samples but the unscored, an invalid one counting 0; None where effects were not asked for."""
    unscored: Mapping[str, int] = field(default_factory=dict)
    """Samples whose effect could not be found, by reason."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return asdict(self)

    def figures(self) -> dict[str, float]:
        """The estimates that there are, without their intervals."""
        found = {figure.name: getattr(self, figure.name) for figure in fields(self)}
        return {name: value.value for name, value in found.items() if isinstance(value, Estimate)}


def evaluate_steps(
    steps: Sequence[Step],
    sampler: CanSample,
    tokenizer: Any,
    tools_for: Callable[[Step], Tools],
    prompt_options: PromptOptions,
    sampling_options: SamplingOptions,
    progress: Callable[[int, int], None] | None = None,
    effects: Effects | None = None,
) -> StepEvaluation:
    """Sample `sampling_options.n` answers at each step and compare their actions with the expert's.

    `tools_for` gives the tools of a step's scaffold; `progress` is called with (steps done, steps in all). Reproducible:
    sampling and bootstrap use `sampling_options.seed`, and call c of the sampler gets seed + c. `effects`: executes all valid
    answers, at the end; without it nothing is executed.
    """
    pairs: list[tuple[Step, Action]] = []
    records: list[StepRecord] = []
    skipped: dict[str, str] = {}
    encoder = StepEncoder(tokenizer, prompt_options, tools_for)
    for call, start in enumerate(range(0, len(steps), _STEPS_A_CALL)):
        ready: list[tuple[Step, Sequence[int]]] = []
        taken = steps[start : start + _STEPS_A_CALL]
        for step, prompt in zip(taken, encoder.encode(taken), strict=True):
            try:
                render_action(step.action)
            except ValueError as error:
                skipped[step.id] = f"the expert's action cannot be a target: {error}"
                continue
            if isinstance(prompt, PromptTooLongError):
                skipped[step.id] = str(prompt)
            else:
                ready.append((step, list(prompt.ids)))
        options = replace(sampling_options, seed=sampling_options.seed + call)
        groups = sampler.sample([ids for _, ids in ready], options) if ready else []
        for (step, ids), group in zip(ready, groups, strict=True):
            actions, marked = zip(*(_mark(step, sample, tools_for(step)) for sample in group), strict=True)
            pairs += [(step, action) for action in actions if action is not None]
            tool = "+".join(call.name for call in step.action.calls)
            place = step.k / sum(turn.is_step for turn in step.trajectory.turns)
            records.append(StepRecord(step.id, len(ids), render_action(step.action), marked, tool, place))
        if progress is not None:
            progress(min(start + _STEPS_A_CALL, len(steps)), len(steps))
    if effects is not None:
        records = _with_effects(records, effects(pairs))
    return _summarise(tuple(records), skipped, sampling_options.seed)


def by_tool(evaluation: StepEvaluation, seed: int = 0) -> dict[str, StepEvaluation]:
    """The same marks for the steps of each of the expert's tools, most frequent first."""
    tools = Counter(record.tool for record in evaluation.steps)
    return {
        tool: _summarise(tuple(record for record in evaluation.steps if record.tool == tool), {}, seed)
        for tool, _ in tools.most_common()
    }


def by_position(evaluation: StepEvaluation, parts: int = 3, seed: int = 0) -> dict[str, StepEvaluation]:
    """The same marks for the steps of each part of their trajectories, from the first; a part without steps is left out."""
    found = {}
    for part in range(parts):
        low, high = part / parts, (part + 1) / parts
        if chosen := tuple(record for record in evaluation.steps if low <= record.position < high):
            found[f"{low:.0%} to {high:.0%}"] = _summarise(chosen, {}, seed)
    return found


def _mark(step: Step, sample: Sample, tools: Tools) -> tuple[Action | None, SampleRecord]:
    """The action of an answer, None where it is invalid, and its marks."""
    scored = score_answer(step, sample.text, sample.finish, tools)
    action, workdir = scored.answer.action, step.trajectory.workdir or "/testbed"
    return action, SampleRecord(
        text=sample.text,
        valid=action is not None,
        error=scored.answer.error,
        similarity=scored.similarity,
        tool_correct=action is not None and [c.name for c in action.calls] == [c.name for c in step.action.calls],
        target_correct=action is not None and same_targets(step.action, action, workdir),
        functional=None if action is None else functional(step.action, action, workdir=workdir),
        reward=INVALID if scored.similarity is None else scored.similarity,
        finish=sample.finish,
        tokens=len(sample.token_ids),
    )


def _with_effects(records: Sequence[StepRecord], values: Sequence[float | Unscored]) -> list[StepRecord]:
    """values: of the valid samples, in their order."""
    left = iter(values)

    def known(sample: SampleRecord) -> SampleRecord:
        if not sample.valid:
            return sample
        value = next(left)
        return replace(sample, unscored=value.reason) if isinstance(value, Unscored) else replace(sample, effect=value)

    return [replace(record, samples=tuple(map(known, record.samples))) for record in records]


def _summarise(records: tuple[StepRecord, ...], skipped: Mapping[str, str], seed: int) -> StepEvaluation:
    def mean(
        value: Callable[[SampleRecord], float], of: Callable[[SampleRecord], bool] = lambda sample: True
    ) -> Estimate | None:
        kept = [[value(sample) for sample in record.samples if of(sample)] for record in records]
        return bootstrap([sum(values) for values in kept], [len(values) for values in kept], seed)

    samples = [sample for record in records for sample in record.samples]
    executed = any(sample.effect is not None or sample.unscored for sample in samples)

    return StepEvaluation(
        n=len(records),
        format_validity=mean(lambda s: s.valid),
        mean_reward=mean(lambda s: s.reward),
        mean_similarity=mean(lambda s: s.similarity or 0.0),
        mean_similarity_valid=mean(lambda s: s.similarity or 0.0, lambda s: s.valid),
        tool_accuracy=mean(lambda s: s.tool_correct),
        steps=records,
        skipped=dict(skipped),
        target_accuracy=mean(lambda s: s.target_correct),
        mean_functional=mean(lambda s: s.functional or 0.0),
        mean_effect=mean(lambda s: s.effect or 0.0, lambda s: s.unscored is None) if executed else None,
        unscored=dict(Counter(sample.unscored for sample in samples if sample.unscored is not None)),
    )
