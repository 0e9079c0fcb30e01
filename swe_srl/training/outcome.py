"""Where an outcome stage's rollouts begin, and the batches that they make.

Invariant: which start is next, and with which numbers it is sampled, follows from the seed, a position, the number of draws and
the curriculum's state: what a checkpoint keeps. Held-out tasks are only evaluated on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from swe_srl.config import OutcomeStage, Recipe, SamplingSection, StartSection
from swe_srl.environments.grading import can_grade, patched_files
from swe_srl.environments.hidden_tests import with_hidden_tests
from swe_srl.environments.image import build_images
from swe_srl.environments.nodes import Nodes
from swe_srl.environments.task import Task
from swe_srl.errors import UserError
from swe_srl.policy.base import CanSample, SamplingOptions
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rollouts.folder import digest
from swe_srl.rollouts.lockstep import Lockstep, roll_out_in_step
from swe_srl.rollouts.run import Job, RolloutOptions, act_alone, act_led
from swe_srl.rollouts.starts import Start, StartRule, starts
from swe_srl.rollouts.tasks import TaskEvaluation, evaluate_tasks
from swe_srl.training.batches import Batch
from swe_srl.training.curriculum import Curriculum
from swe_srl.training.data import Dataset, StepOrder, prompt_options, stage_tasks
from swe_srl.training.filtering import fill_batch, usable
from swe_srl.training.rollout_groups import (
    RolloutGroup,
    examples_of_rollouts,
    rollout_metrics,
    rollout_records,
    score_rollout,
)
from swe_srl.training.sites import Site
from swe_srl.trajectories.model import Step, Trajectory


@dataclass(frozen=True, slots=True)
class Origin:
    """What starts are taken from: a task, or an expert's trajectory of one."""

    task: Task
    image: str
    expert: Trajectory | None
    steps: tuple[Step, ...] = ()

    @property
    def name(self) -> str:
        """Known by it in a checkpoint."""
        return self.expert.id if self.expert else self.task.id


@dataclass(frozen=True, slots=True)
class StageOutline:
    """What all processes of a run know of an outcome stage; its rollouts are made by the first."""

    starts: int
    held_out: int
    """Tasks."""
    summary: dict[str, Any]
    """For data.json."""


@dataclass(slots=True)
class StageRollouts:
    """What an outcome stage needs for its rollouts."""

    stage: OutcomeStage
    model: str
    tokenizer: Any
    prompt: PromptOptions
    origins: list[Origin]
    held_out: list[Origin]
    scaffold: str | None
    """Of rollouts that begin at the issue; None: swe-agent."""
    site: Site
    left_out: list[dict[str, str]] = field(default_factory=list)
    """Id and reason."""

    def outline(self) -> StageOutline:
        """See `StageOutline`."""
        return StageOutline(len(self.origins), len(self.held_out), self.summary())

    def summary(self) -> dict[str, Any]:
        """For data.json."""
        decided = [(origin.name, origin.image, origin.task.model_dump_json()) for origin in (*self.origins, *self.held_out)]
        told = [[(turn.role, turn.text) for turn in origin.expert.turns] for origin in self.origins if origin.expert]
        return {
            "starts": len(self.origins),
            "tasks": sorted({origin.task.id for origin in self.origins}),
            "held_out_tasks": sorted(origin.task.id for origin in self.held_out),
            "left_out": self.left_out,
            "fingerprint": digest(decided, told),
        }

    def make(
        self,
        begin: Sequence[tuple[Origin, Start, int]],
        sampler: CanSample,
        sampling: SamplingOptions,
        seed: str,
        between: Callable[[], None],
    ) -> list[list[tuple[Trajectory, str | None]]]:
        """Rollouts of each start, as many as it asks for; each with what failed."""
        jobs = [
            Job(f"{start.trajectory.id}-{seed}-{number}-rollout-{attempt}", origin.task, start, attempt, origin.image, seed)
            for number, (origin, start, count) in enumerate(begin)
            for attempt in range(count)
        ]
        options = RolloutOptions(agent=self.stage.agent, workers=self.stage.workers, reruns=self.stage.reruns)
        least = self.stage.start.own_history
        act = act_alone if least is None else partial(act_led, least=least)
        lockstep = Lockstep(sampler, self.tokenizer, self.prompt, sampling, seed, self.site.meeting, self.site.say)
        work = self.site.work(self.model, options, act)
        made = iter(roll_out_in_step(self.site.cluster(options.workers), jobs, lockstep, work, between))
        return [[next(made) for _ in range(count)] for _, _, count in begin]

    def evaluate(
        self, sampler: CanSample, max_tokens: int, seed: int, between: Callable[[], None] = lambda: None
    ) -> TaskEvaluation | None:
        """Greedy rollouts from the issue of the held-out tasks, one each; None where there are none."""
        if not self.held_out:
            return None
        greedy = SamplingOptions(temperature=0.0, max_tokens=max_tokens)
        begin = [(origin, _at_issue(origin, self.scaffold), 1) for origin in self.held_out]
        made = [rollout for [rollout] in self.make(begin, sampler, greedy, "evaluation", between)]
        finished = [rollout for rollout, error in made if error is None]
        return evaluate_tasks(finished, [rollout for rollout, error in made if error is not None], seed=seed)


def open_rollouts(
    recipe: Recipe,
    dataset: Dataset,
    tokenizer: Any,
    context: int | None,
    say: Callable[[str], None],
    nodes: Nodes | None = None,
) -> dict[int, StageRollouts]:
    """What each outcome stage of a recipe needs, by the stage's index; images that are missing are built.

    Args:
        context: of the model, in tokens; None: unknown.
        nodes: whose daemons have the sandboxes; None: this machine's has them.

    Raises:
        UserError: there is no daemon, nothing to roll out, or no room for a prompt or a stage.
    """
    wanted = {index: stage for index, stage in enumerate(recipe.stages) if isinstance(stage, OutcomeStage)}
    if not wanted:
        return {}
    site = Site.open(wanted, nodes, say)
    return {
        index: _open(f"stages.{index}", stage, recipe, dataset, tokenizer, context, site) for index, stage in wanted.items()
    }


def _open(
    name: str,
    stage: OutcomeStage,
    recipe: Recipe,
    dataset: Dataset,
    tokenizer: Any,
    context: int | None,
    site: Site,
) -> StageRollouts:
    client, say = site.client, site.say
    tasks, left_out = stage_tasks(stage), []
    for task in list(tasks.values()):
        if reason := _why_not(task):
            left_out.append({"id": tasks.pop(task.id).id, "reason": reason})
    built, failed = build_images(client, list(tasks.values()), say)
    tasks = with_hidden_tests(client, tasks, built, failed)
    site.send({image.tag for image in built.values()})
    left_out += [{"id": task, "reason": reason} for task, reason in failed.items()]
    experts = [run for run in dataset.experts if run.task_id in built]
    origins = []
    for task_id, image in built.items():
        if task_id in dataset.held_out:
            continue
        if stage.start.at == "issue":
            origins.append(Origin(tasks[task_id], image.tag, None))
            continue
        runs = [run for run in experts if run.task_id == task_id]
        found = [Origin(tasks[task_id], image.tag, run, tuple(run.steps())) for run in runs]
        long_enough = [origin for origin in found if len(origin.steps) > (stage.start.n or 0) or stage.start.at == "last"]
        origins += [origin for origin in long_enough if origin.steps]
        if not runs:
            left_out.append({"id": task_id, "reason": "no training trajectory of this task, at whose steps to begin"})
        elif not long_enough:
            left_out.append({"id": task_id, "reason": f"no training trajectory of this task has a step {stage.start.n}"})
    held_out = [Origin(tasks[task], image.tag, None) for task, image in built.items() if task in dataset.held_out]
    for item in left_out:
        say(f"{name}.tasks: left out {item['id']}: {item['reason']}")
    if not origins:
        raise UserError(f"{name}.tasks: nothing to roll out; left out: {len(left_out)}, held out: {len(held_out)}")
    if recipe.figure_of(stage) == "resolved_rate" and not held_out:
        raise UserError(f"{name}: best is resolved_rate, and none of its tasks is held out: set data.hold_out_tasks")
    prompt = _fitted(prompt_options(recipe.prompt), context, _longest_answer(recipe, stage), name)
    used = {origin.expert.scaffold for origin in origins if origin.expert}
    scaffold = stage.start.scaffold or (used.pop() if len(used) == 1 else None)
    return StageRollouts(stage, recipe.model.name, tokenizer, prompt, origins, held_out, scaffold, site, left_out)


def _why_not(task: Task) -> str | None:
    hidden = task.hidden_tests and task.test_command and task.fail_to_pass  # they are read from the image when it is there
    if not can_grade(task) and not hidden:
        return "has no tests to judge by: it needs test_command, test_patch and fail_to_pass"
    try:
        patched_files(task.test_patch or "")
    except ValueError as error:
        return f"its test patch cannot be read: {error}"
    return None


def _longest_answer(recipe: Recipe, stage: OutcomeStage) -> int:
    return max(recipe.sampling_of(stage).max_tokens, recipe.evaluation.max_tokens or 0)


def _fitted(prompt: PromptOptions, context: int | None, answer: int, name: str) -> PromptOptions:
    """A prompt leaves room for an answer in the model's context: a rollout's length is not known beforehand."""
    if context is None:
        return prompt
    room = context - answer
    if room < 1:
        raise UserError(f"{name}: answers of {answer} tokens leave no room for a prompt in the model's context of {context}")
    return replace(prompt, max_prompt_tokens=min(room, prompt.max_prompt_tokens or room))


def _at_issue(origin: Origin, scaffold: str | None) -> Start:
    [start], _ = starts(StartRule("issue"), {origin.task.id: origin.task}, (), scaffold, None)
    return start


def start_of(origin: Origin, section: StartSection, left: int) -> Start:
    """The start of an origin, `left` steps before its expert's end (no matter where there is none)."""
    if origin.expert is None:
        return _at_issue(origin, section.scaffold)
    rule = StartRule("step", len(origin.steps) - left)
    snapshots = Path(section.snapshots) if section.snapshots else None
    tasks, led = {origin.task.id: origin.task}, section.own_history is not None
    [start], _ = starts(rule, tasks, [origin.expert], None, snapshots, led=led)
    return start


class OutcomeBatches:
    """Groups of rollouts, filled up by dynamic sampling, with their advantages; see `Batches`."""

    def __init__(
        self,
        rollouts: StageRollouts,
        sampler: CanSample,
        sampling: SamplingSection,
        seed: str,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """`between` is called after each round of answers; it may raise to stop."""
        self.rollouts, self.stage = rollouts, rollouts.stage
        self._sampler, self._sampling, self._seed, self._between = sampler, sampling, seed, between
        self._order = StepOrder(len(rollouts.origins), seed)
        self._draws = 0
        start = self.stage.start
        lengths = {origin.name: len(origin.steps) for origin in rollouts.origins if origin.expert}
        self.curriculum = Curriculum(lengths, start.n or 0, start.curriculum)

    def __next__(self) -> Batch:
        """See `Batches`."""
        stage, started = self.stage, time.perf_counter()
        size, epsilon, refills = stage.steps_per_update, stage.epsilon, stage.max_refills
        filled = fill_batch(self._draw, lambda group: group.rewards, size=size, epsilon=epsilon, max_refills=refills)
        kept = usable(filled, size=size, exhausted=stage.exhausted)
        metrics = rollout_metrics(filled, stage)
        if stage.start.curriculum is not None:
            metrics["at_issue"] = self.curriculum.at_issue()
        seconds = {"rollouts": time.perf_counter() - started}
        return Batch(examples_of_rollouts(kept, stage), metrics, rollout_records(filled, stage), seconds)

    def state(self) -> dict[str, int]:
        """See `Batches`."""
        return {"position": self._order.position, "draws": self._draws, **self.curriculum.state()}

    def restore(self, state: Mapping[str, int]) -> None:
        """See `Batches`."""
        self._order.position, self._draws = state["position"], state["draws"]
        self.curriculum.restore(state)

    def _draw(self, count: int) -> list[RolloutGroup]:
        """Groups of rollouts from the next `count` origins. Each draw has a seed of its own."""
        taken = [self.rollouts.origins[index] for index in self._order.take(count)]
        left = [self._left(origin) for origin in taken]
        begin = [
            (origin, start_of(origin, self.stage.start, steps), self._sampling.samples)
            for origin, steps in zip(taken, left, strict=True)
        ]
        options = SamplingOptions(temperature=self._sampling.temperature, max_tokens=self._sampling.max_tokens)
        self._draws += 1
        made = self.rollouts.make(begin, self._sampler, options, f"{self._seed}/{self._draws}", self._between)
        groups = []
        for (origin, start, _), steps, rollouts in zip(begin, left, made, strict=True):
            scored = [score_rollout(rollout, origin.task, self.stage) for rollout, _ in rollouts]
            rest = origin.steps[len(origin.steps) - steps :] if origin.expert else ()
            groups.append(RolloutGroup(start, rest, scored))
            if origin.expert:
                self.curriculum.judge(origin.name, steps, groups[-1].resolved)
        return groups

    def _left(self, origin: Origin) -> int:
        """Steps between a start and its expert's end."""
        start = self.stage.start
        if origin.expert is None:
            return 0
        return len(origin.steps) - (start.n or 0) if start.at == "step" else self.curriculum.left[origin.name]
