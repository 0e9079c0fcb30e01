"""The plan of a recipe: its stages in updates and tokens, and for each number of devices the memory and the time.

Invariant: nothing is trained or written; what cannot be done at all is refused by name, and what does not fit a number of
devices says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from statistics import fmean
from typing import Any

from swe_srl.config import OutcomeStage, PolicyStage, Recipe, Stage
from swe_srl.errors import UserError
from swe_srl.planning import memory, timing
from swe_srl.planning.costs import GIB, Costs, Device
from swe_srl.planning.rollouts import drawn_starts, planned_starts, rollout_examples
from swe_srl.planning.shape import ModelShape, model_shape
from swe_srl.planning.tokens import BatchTokens, separate_tokens, tree_of, tree_tokens, unshared_tokens
from swe_srl.planning.workload import PlannedStep, Progress, Workload, workload
from swe_srl.training.logprobs import Example

BATCHES = 3
"""Batches of a stage that are counted, its first; the others are taken to be like them. Of an outcome stage groups."""
SIZES = (1, 8, 64)
_LARGEST = 4096


@dataclass(frozen=True, slots=True)
class StagePlan:
    """One stage. Tokens are those of one update, on average."""

    objective: str
    engine: str
    """`tree` or `separate`, with the reason where it is not the tree."""
    steps: int
    updates: int
    drawn: float
    """Groups sampled for one update; 0 in sft."""
    kept: float
    """Groups (in sft steps) trained on in one update."""
    prompt_tokens: float
    """Mean length of a prompt."""
    unshared_prompt_tokens: float
    """Tokens of an update's prompts, each that several share counted once."""
    answer_tokens: float
    """Mean length of an answer."""
    turns: float
    """Answers of a sample: 1, in an outcome stage those of a rollout."""
    batch: BatchTokens


@dataclass(frozen=True, slots=True)
class SizePlan:
    """The whole run on a number of devices."""

    devices: int
    sampling_devices: int
    """Of these: they sample while the others train (`staleness`); 0: all do both, in turns."""
    memory_gib: dict[str, float]
    """Of one device that trains, by part, and of one that samples."""
    peak_gib: float
    fits: bool
    seconds: dict[str, float]
    """By phase; what goes on while something else does is taken off as a phase of its own."""
    bottleneck: str
    """The phase that takes longest."""
    device_hours: float
    cost: float | None
    """In the currency of the unit costs; None where they have no price."""

    @property
    def total_seconds(self) -> float:
        """Of the whole run."""
        return sum(self.seconds.values())


@dataclass(frozen=True, slots=True)
class Plan:
    """What `swe-srl train RECIPE --dry-run` prints."""

    model: ModelShape
    data: dict[str, Any]
    device: str
    device_memory_gib: float
    measured: bool
    costs_source: str
    evaluations: int
    stages: list[StagePlan]
    sizes: list[SizePlan]
    fits_from: int | None
    """The smallest power of two of devices that it fits; None where none up to 4,096 does."""

    def to_json(self) -> dict[str, Any]:
        """Everything, as `--json` prints it."""
        data = asdict(self)
        for size, plan in zip(data["sizes"], self.sizes, strict=True):
            size["total_seconds"] = plan.total_seconds
        return data


def make_plan(
    recipe: Recipe, costs: Costs, sizes: Sequence[int] | None = None, progress: Progress = lambda done, total: None
) -> Plan:
    """The plan of a recipe.

    Args:
        sizes: numbers of devices; absent: 1, 8 and 64 of an accelerator, 1 of a machine without.
        progress: called with steps encoded and steps in all.

    Raises:
        UserError: no configuration of the model, no data and no sizes of it, or options that this model, these data or this
            device cannot do.
    """
    name, device = costs.device(recipe.plan.device)
    shape = model_shape(recipe)
    parallel = recipe.sampling.vllm.tensor_parallel
    if shape.heads % parallel:
        raise UserError(f"sampling.vllm.tensor_parallel: {shape.heads} heads cannot be split over {parallel} devices")
    work = workload(recipe, shape.context, progress)
    stages = [_stage(recipe, shape, work, index) for index in range(len(recipe.stages))]
    _check_cache(recipe, shape, device, stages)
    evaluations = _evaluations(recipe, work, stages)

    def sized(devices: int) -> SizePlan:
        machine = timing.Machine(recipe, shape, device, devices)
        found = [_size(recipe, costs, machine, apart, stages, work, evaluations) for apart in _apart(recipe, devices)]
        return min(found, key=lambda size: (not size.fits, size.total_seconds))

    chosen = sizes or (SIZES if device.kind == "gpu" else (1,))
    powers = [2**i for i in range(_LARGEST.bit_length())]
    return Plan(
        model=shape,
        data=_data(work),
        device=name,
        device_memory_gib=device.memory_gib,
        measured=device.measured,
        costs_source=device.source,
        evaluations=evaluations,
        stages=stages,
        sizes=[sized(devices) for devices in chosen],
        fits_from=next((devices for devices in powers if sized(devices).fits), None),
    )


def _data(work: Workload) -> dict[str, Any]:
    return {
        "source": work.source,
        "trajectories": work.trajectories,
        "steps": len(work.steps),
        "validation_steps": work.validation_steps,
        "expert_tokens": work.expert_tokens,
        "left_out": work.left_out,
    }


def _stage(recipe: Recipe, shape: ModelShape, work: Workload, index: int) -> StagePlan:
    stage = recipe.stages[index]
    reason = 'engine = "separate"' if stage.engine == "separate" else shape.no_tree
    if stage.engine == "tree" and reason is not None:
        raise UserError(f'stages.{index}: engine = "tree" does not serve this model: {reason}. Use "auto" or "separate"')
    answer_tokens, seed = _answer_tokens(recipe, work, stage), f"{recipe.seed}/{index}"
    steps, parts, turns = len(work.of_stage(stage)), 1, 1.0
    batches: Iterator[list[Example]]
    if isinstance(stage, OutcomeStage):
        starts = planned_starts(recipe, stage, work, answer_tokens)
        steps, parts, turns = len(starts), stage.steps_per_update, fmean(start.turns for start in starts)
        batches = (
            rollout_examples(recipe, stage, work, start, round(answer_tokens), shape.context)
            for start in drawn_starts(starts, seed)
        )
    else:
        batches = (_examples(recipe, stage, drawn, round(answer_tokens)) for drawn in work.batches(stage, seed))
    updates = stage.total_updates(steps)
    counted, prompts, unshared = [], [], []
    for examples in islice(batches, min(BATCHES, updates)):
        tree, budget = tree_of(examples), stage.tokens_per_microbatch
        counted.append(tree_tokens(tree, examples, budget) if reason is None else separate_tokens(examples, budget))
        prompts += [len(example.prompt_ids) for example in examples]
        unshared.append(unshared_tokens(tree))
    drawn, kept, answers = 0.0, float(stage.steps_per_update), answer_tokens
    if isinstance(stage, PolicyStage):
        drawn, kept = timing.draws(stage.steps_per_update, recipe.plan.informative, stage.max_refills)
    else:
        answers = fmean(step.expert_tokens for step in work.sft_steps)
    return StagePlan(
        objective=stage.objective,
        engine="tree" if reason is None else f"separate: {reason}",
        steps=steps,
        updates=updates,
        drawn=drawn,
        kept=kept,
        prompt_tokens=fmean(prompts),
        unshared_prompt_tokens=parts * fmean(unshared),
        answer_tokens=answers,
        turns=turns,
        batch=_mean(counted, parts),
    )


def _examples(recipe: Recipe, stage: Stage, steps: Sequence[PlannedStep], answer_tokens: int) -> list[Example]:
    if stage.objective == "sft":
        return [Example(step.prompt(), (0,) * step.expert_tokens) for step in steps]
    samples = recipe.sampling_of(stage).samples
    return [Example(prompt, (0,) * answer_tokens) for step in steps for prompt in [step.prompt()] for _ in range(samples)]


def _mean(counted: Sequence[BatchTokens], parts: int) -> BatchTokens:
    """Of several batches of which `parts` make an update: what adds up on average, and the largest of what must fit."""
    names = [field.name for field in fields(BatchTokens)]
    largest = ("held", "path")
    return BatchTokens(
        **{
            name: max(values) if name in largest else round(parts * fmean(values))
            for name in names
            for values in [[getattr(batch, name) for batch in counted]]
        }
    )


def _answer_tokens(recipe: Recipe, work: Workload, stage: Stage) -> float:
    return min(recipe.sampling_of(stage).max_tokens, recipe.plan.answer_tokens or work.expert_tokens)


def _evaluations(recipe: Recipe, work: Workload, stages: Sequence[StagePlan]) -> int:
    if not (recipe.evaluation.enabled and work.validation_steps):
        return 0
    between = sum((stage.updates - 1) // recipe.evaluation.every for stage in stages) if recipe.evaluation.every else 0
    return 2 + between + (len(stages) - 1) * recipe.evaluation.each_stage


def _check_cache(recipe: Recipe, shape: ModelShape, device: Device, stages: Sequence[StagePlan]) -> None:
    if recipe.sampling.engine != "vllm":
        return
    room = memory.cache_tokens(recipe, shape, device)
    needed = max(stage.prompt_tokens + stage.answer_tokens for stage in stages)
    if room < needed:
        raise UserError(
            f"sampling.vllm: beside the weights there is room for the keys and values of {room:,.0f} tokens, and a prompt with "
            f"its answer takes {needed:,.0f}: give it more memory, split it (tensor_parallel) or use dtype bfloat16"
        )


def _apart(recipe: Recipe, devices: int) -> Sequence[int]:
    """How many devices may sample while the others train; 0 where all do both, in turns."""
    each = recipe.sampling.vllm.tensor_parallel
    if not recipe.sampling.staleness or devices <= each:
        return [0]
    if recipe.sampling.engines > 1:
        taken = recipe.sampling.engines * each
        return [taken if taken < devices else 0]
    return range(each, devices, each)


def _size(
    recipe: Recipe,
    costs: Costs,
    machine: timing.Machine,
    apart: int,
    stages: Sequence[StagePlan],
    work: Workload,
    evaluations: int,
) -> SizePlan:
    """`apart`: devices that only sample; 0: all do both."""
    shape, device, devices = machine.shape, machine.device, machine.devices
    trainers, samplers = replace(machine, devices=devices - apart), replace(machine, devices=apart or devices)
    in_sandboxes = ("commands", "tests") if any(isinstance(stage, OutcomeStage) for stage in recipe.stages) else ()
    together = ("at the same time",) if recipe.sampling.staleness else ()
    phases = ("sample", *in_sandboxes, "reward", "train", "communicate", *together, "new weights", "evaluate", "checkpoint")
    seconds = dict.fromkeys(phases, 0.0)
    for section, stage in zip(recipe.stages, stages, strict=True):
        each = _update(recipe, costs, trainers, samplers, section, stage)
        if apart and recipe.staleness_of(section):
            each["at the same time"] = -min(
                sum(each.get(phase, 0.0) for phase in side)
                for side in (("sample", *in_sandboxes, "reward"), ("train", "communicate"))
            )
        for phase, of_update in each.items():
            seconds[phase] += stage.updates * of_update
    seconds["evaluate"] = evaluations * timing.sampling_seconds(samplers, _evaluation(recipe, work, stages))
    every = recipe.checkpoints.every
    if every:
        seconds["checkpoint"] = sum(stage.updates for stage in stages) // every * timing.checkpoint_seconds(machine)
    samples = any(stage.objective != "sft" for stage in stages) or evaluations > 0
    sampler = memory.sampler_memory(recipe, shape, device) if samples else 0.0
    own_model = recipe.sampling.engine == "transformers" and not recipe.sampling.has_engines
    in_turns = own_model or recipe.sampling.vllm.sleep
    parts = [memory.training_memory(recipe, shape, stage.batch, trainers.devices, 1.0) for stage in stages]
    peaks = [max(sum(part.values()), sampler) if apart else memory.together(part, sampler, in_turns=in_turns) for part in parts]
    heaviest = max(range(len(stages)), key=lambda index: peaks[index])
    peak = peaks[heaviest] / GIB
    total = sum(seconds.values())
    return SizePlan(
        devices=devices,
        sampling_devices=apart,
        memory_gib={part: size / GIB for part, size in {**parts[heaviest], "sampler": sampler}.items()},
        peak_gib=peak,
        fits=peak <= device.memory_gib and devices >= recipe.sampling.vllm.tensor_parallel,
        seconds=seconds,
        bottleneck=max(seconds, key=lambda phase: seconds[phase]),
        device_hours=devices * total / 3600,
        cost=None if device.price_per_hour is None else device.price_per_hour * devices * total / 3600,
    )


def _update(
    recipe: Recipe, costs: Costs, trainers: timing.Machine, samplers: timing.Machine, section: Stage, stage: StagePlan
) -> dict[str, float]:
    """Seconds of one update by phase."""
    share = stage.kept / section.steps_per_update
    once = timing.update_seconds(trainers, stage.batch)
    if not isinstance(section, PolicyStage):
        return once
    found = {phase: share * section.passes * each for phase, each in once.items()}
    more = (section.mini_batches * section.passes > 1) + (section.kl_coefficient > 0)
    found["train"] += more * share * timing.forward_seconds(trainers, stage.batch)
    drawn = stage.drawn / section.steps_per_update
    shared = recipe.sampling.engine != "transformers"
    sampling = recipe.sampling_of(section)
    rollouts = stage.drawn * sampling.samples
    asked, samples = (rollouts * stage.turns, 1) if isinstance(section, OutcomeStage) else (stage.drawn, sampling.samples)
    prompts = drawn * stage.unshared_prompt_tokens if shared else asked * stage.prompt_tokens
    work = timing.Sampling(asked, prompts, stage.prompt_tokens, samples, stage.answer_tokens, sampling.max_tokens)
    if isinstance(section, OutcomeStage):
        found |= timing.rollout_seconds(samplers, costs.rollouts, section, rollouts, stage.turns, work)
    else:
        found["sample"] = timing.sampling_seconds(samplers, work)
        found["reward"] = timing.reward_seconds(recipe, costs, rollouts)
    found["new weights"] = timing.new_weights_seconds(samplers)
    return found


def _evaluation(recipe: Recipe, work: Workload, stages: Sequence[StagePlan]) -> timing.Sampling:
    """Held-out steps have the prompts of the last stage whose samples are single answers."""
    of_steps = [stage for stage in stages if stage.objective != "outcome"] or stages
    count, length = work.validation_steps, of_steps[-1].prompt_tokens
    longest = recipe.evaluation.max_tokens or recipe.sampling.max_tokens
    answer = min(longest, recipe.plan.answer_tokens or work.expert_tokens)
    return timing.Sampling(count, count * length, length, 1, answer, longest)
