"""From trajectory files to the steps a run trains and is evaluated on.

Invariant: the split is by task, never by step; every step left out is counted under a reason; prompt ids are rendered once, as
they are served.
"""

from __future__ import annotations

import fnmatch
import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from swe_srl.config import DataSection, PromptSection, Recipe
from swe_srl.environments.marks import Marks
from swe_srl.errors import UserError
from swe_srl.policy.format import render_action
from swe_srl.policy.prompts import PromptOptions, PromptTooLongError, encode_answer, encode_step
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step, Trajectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A step ready to be served."""

    step: Step
    expert: str
    """The expert's action as the policy would have to write it."""
    prompt_ids: Sequence[int]
    target_ids: Sequence[int]
    """The expert's whole answer; empty where its thought cannot be written, so that sft cannot use it."""


@dataclass(slots=True)
class Dataset:
    """What a run learns from and is measured on."""

    train: list[TrainingStep]
    validation: list[Step]
    dropped: Counter[str] = field(default_factory=Counter)
    """Steps left out, by reason."""

    def for_objective(self, objective: str) -> list[TrainingStep]:
        """The steps a stage can use. Raises UserError with the counts where there are none."""
        steps = [item for item in self.train if item.target_ids] if objective == "sft" else self.train
        if not steps:
            raise UserError(f"no steps left for the {objective} stage; left out: {_counts(self.dropped)}")
        return steps

    def summary(self) -> dict[str, Any]:
        """Counts for the run folder."""
        return {
            "train_steps": len(self.train),
            "train_tasks": sorted({item.step.trajectory.task_id for item in self.train}),
            "sft_steps": sum(bool(item.target_ids) for item in self.train),
            "validation_steps": len(self.validation),
            "validation_tasks": sorted({step.trajectory.task_id for step in self.validation}),
            "left_out": dict(sorted(self.dropped.items())),
        }


def load_dataset(recipe: Recipe, tokenizer: Any, progress: Callable[[int, int], None] = lambda done, total: None) -> Dataset:
    """Read, split and encode the trajectories of a recipe.

    Args:
        progress: called with steps done and steps in all.

    Raises:
        UserError: files that cannot be read, a hold-out glob that matches nothing, or no training steps left (with counts).
    """
    held_out_files = load(recipe.data.validation) if recipe.data.validation else []
    train, validation = split(load(recipe.data.train), held_out_files, recipe.data)
    if not train:
        raise UserError("data.train: no trajectories left after holding out; loosen data.hold_out_tasks or data.validation")
    options = prompt_options(recipe.prompt)
    writes_targets = any(stage.objective == "sft" for stage in recipe.stages)
    dataset, held_out = Dataset([], []), Counter[str]()
    train_steps, validation_steps = steps_of(train), steps_of(validation)
    total = len(train_steps)
    if recipe.data.replay is not None:
        train_steps = _vouched_for(train_steps, Marks(Path(recipe.data.replay)), dataset.dropped)
    wanted = [_wanted(train_steps, recipe.data.max_train_steps), _wanted(validation_steps, recipe.data.max_validation_steps)]

    def encode_train(step: Step) -> TrainingStep | None:
        progress(len(dataset.train), sum(wanted))
        return _encode(step, tokenizer, options, writes_targets, dataset.dropped)

    def encode_validation(step: Step) -> Step | None:
        progress(len(dataset.train) + len(dataset.validation), sum(wanted))
        return step if _encode(step, tokenizer, options, False, held_out) is not None else None

    _draw(train_steps, recipe.data.max_train_steps, recipe.seed, encode_train, dataset.train)
    _draw(validation_steps, recipe.data.max_validation_steps, recipe.seed, encode_validation, dataset.validation)
    progress(sum(wanted), sum(wanted))
    dataset.dropped.update({f"validation: {reason}": count for reason, count in held_out.items()})
    if not dataset.train:
        raise UserError(f"no training steps left of {total}; left out: {_counts(dataset.dropped)}")
    return dataset


def check_context(dataset: Dataset, recipe: Recipe, limit: int | None) -> None:
    """Raises UserError where a prompt and its answer would not fit the model's context of `limit` tokens (None: unknown)."""
    sampled = recipe.sampling.max_tokens if any(stage.objective == "srl" for stage in recipe.stages) else 0
    for item in dataset.train:
        needed = len(item.prompt_ids) + max(len(item.target_ids), sampled)
        if limit is not None and needed > limit:
            raise UserError(
                f"{item.step.id}: a prompt of {len(item.prompt_ids)} tokens and its answer need {needed}, more than the "
                f"model's context of {limit}; lower prompt.max_prompt_tokens or sampling.max_tokens"
            )


def split(
    trajectories: Sequence[Trajectory], validation: Sequence[Trajectory], options: DataSection
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Hold out whole tasks: those of `validation` and those whose id matches a glob of `hold_out_tasks`.

    Returns:
        Training and validation trajectories, sharing no task. Raises UserError for a glob that matches no task: a mistyped one
        would train on what should be held out.
    """
    if options.only_resolved:
        trajectories = [trajectory for trajectory in trajectories if trajectory.resolved]
    tasks = {trajectory.task_id for trajectory in trajectories}
    held_out = {trajectory.task_id for trajectory in validation}
    for pattern in options.hold_out_tasks:
        matching = {task for task in tasks if fnmatch.fnmatchcase(task, pattern)}
        if not matching:
            some = ", ".join(sorted(tasks)[:5])
            raise UserError(f"data.hold_out_tasks: {pattern!r} matches none of the {len(tasks)} tasks (such as {some})")
        held_out |= matching
    train = [trajectory for trajectory in trajectories if trajectory.task_id not in held_out]
    known = {trajectory.id for trajectory in validation}
    extra = [trajectory for trajectory in trajectories if trajectory.task_id in held_out and trajectory.id not in known]
    return train, [*validation, *extra]


def steps_of(trajectories: Iterable[Trajectory]) -> list[Step]:
    """Every step of every trajectory, in order."""
    return [step for trajectory in trajectories for step in trajectory.steps()]


def prompt_options(section: PromptSection) -> PromptOptions:
    """The prompt options of a recipe, as the policy takes them."""
    return PromptOptions(
        last_pairs=section.last_pairs,
        max_observation_chars=section.max_observation_chars,
        tool_descriptions=section.tool_descriptions,
        max_prompt_tokens=section.max_prompt_tokens,
    )


def tools_for(step: Step) -> Sequence[Mapping[str, Any]]:
    """The tools of the scaffold the step was recorded with."""
    return get_scaffold(step.trajectory.scaffold).tools


class StepOrder:
    """An endless seeded order over n steps: a new permutation each epoch, each step once an epoch.

    Invariant: the order depends on (n, seed) and `position` alone, so a position is all there is to remember.
    """

    def __init__(self, n: int, seed: str, position: int = 0) -> None:
        self.n, self.seed, self.position = n, seed, position

    def take(self, count: int) -> list[int]:
        """The next `count` indices."""
        taken = [self._at(position) for position in range(self.position, self.position + count)]
        self.position += count
        return taken

    def _at(self, position: int) -> int:
        epoch, offset = divmod(position, self.n)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._order = random.Random(f"{self.seed}/{epoch}").sample(range(self.n), self.n)
        return self._order[offset]


def _encode(
    step: Step, tokenizer: Any, options: PromptOptions, writes_target: bool, dropped: Counter[str]
) -> TrainingStep | None:
    try:
        step.action.call  # noqa: B018  # raises for several calls, which no valid answer can hold
        expert = render_action(step.action)
    except ValueError:
        dropped["the action cannot be written as one answer"] += 1
        return None
    try:
        prompt_ids = encode_step(step, tools_for(step), options, tokenizer)
    except PromptTooLongError:
        dropped[f"the prompt is longer than {options.max_prompt_tokens} tokens"] += 1
        return None
    target_ids: Sequence[int] = ()
    if writes_target:
        try:
            target_ids = encode_answer(step.turn.thought, step.action, tokenizer)
        except ValueError:
            dropped["the thought cannot be written (sft only)"] += 1
    # Four bytes an id instead of a Python object each: a paper-size run holds hundreds of millions of them.
    return TrainingStep(step, expert, array("i", prompt_ids), array("i", target_ids))


def _vouched_for(steps: Sequence[Step], marks: Marks, dropped: Counter[str]) -> list[Step]:
    """The steps that a replay did not mark; the others are counted under its reasons."""
    against = [marks.against(step) for step in steps]
    dropped.update(f"replay: {reason}" for reason in against if reason is not None)
    return [step for step, reason in zip(steps, against, strict=True) if reason is None]


def _wanted(steps: Sequence[Step], limit: int | None) -> int:
    return len(steps) if limit is None else min(limit, len(steps))


def _draw(steps: Sequence[Step], limit: int | None, seed: int, encode: Callable[[Step], T | None], drawn: list[T]) -> None:
    """Put what can be encoded of the steps into `drawn`: all, or `limit` of them by the seed; in their first order.

    Steps are encoded until the limit is reached and no further: encoding every step of a large data set takes its time.
    """
    wanted = _wanted(steps, limit)
    order = range(len(steps)) if wanted == len(steps) else random.Random(f"{seed}/limit").sample(range(len(steps)), len(steps))
    places = []
    for index in order:
        if len(drawn) == wanted:
            break
        if (encoded := encode(steps[index])) is not None:
            places.append(index)
            drawn.append(encoded)
    drawn[:] = [encoded for _, encoded in sorted(zip(places, drawn, strict=True), key=lambda pair: pair[0])]


def _counts(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count} because {reason}" for reason, count in sorted(dropped.items())) or "none"
