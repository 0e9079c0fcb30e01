"""Seconds of a batch by phase, from its tokens and unit costs; the formulae are in docs/planning.md.

Invariant: pure arithmetic. Each phase has its devices to itself, and work is spread evenly over them: what is slower for
imbalance is not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from swe_srl.config import OutcomeStage, Recipe
from swe_srl.planning.costs import GB, Costs, Device, RolloutSeconds
from swe_srl.planning.memory import cache_tokens, kv_bytes, served_bytes
from swe_srl.planning.shape import ModelShape
from swe_srl.planning.tokens import BatchTokens

MAX_SEQUENCES = 256
"""That vLLM decodes at a time; its default on a server."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What is sampled for an update, or in an evaluation."""

    prompts: float
    prompt_tokens: float
    """Of all prompts, or of what they do not share where the sampler computes that once."""
    context: float
    """Mean length of a prompt."""
    samples: int
    """Of each prompt."""
    answer_tokens: float
    longest: int
    """That an answer may be."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A number of equal devices, and the recipe that runs on them."""

    recipe: Recipe
    shape: ModelShape
    device: Device
    devices: int

    def rate(self, dtype: str, use: float) -> float:
        """Floating-point operations a second of all devices."""
        peak = self.device.teraflops.bfloat16 if dtype == "bfloat16" else self.device.teraflops.float32
        return peak * 1e12 * use * self.devices

    @property
    def memory_rate(self) -> float:
        """Bytes a second of all devices."""
        return self.device.memory_gb_s * GB * self.device.use_memory * self.devices

    @property
    def link_rate(self) -> float:
        """Bytes a second of one device, to and from the others."""
        inside = self.devices <= self.device.devices_per_node
        return (self.device.link_gb_s if inside else self.device.network_gb_s) * GB


def forward_flops(shape: ModelShape, tokens: float, pairs: float, scored: float) -> float:
    """2 for every weight and token, 4 for every pair and number of a query, in all layers; the head at scored tokens alone."""
    return 2 * shape.matmul * tokens + 4 * shape.layers * shape.queries * pairs + 2 * shape.head * scored


def update_flops(shape: ModelShape, batch: BatchTokens, *, checkpointing: bool) -> float:
    """Forward and backward of a batch. Backward takes two forwards' worth; where weights are frozen, one for their matrices."""
    forward = forward_flops(shape, batch.tokens, batch.pairs, batch.scored)
    frozen = shape.trained < shape.parameters
    attention = 4 * shape.layers * shape.queries * batch.pairs
    backward = 2 * attention + (1 if frozen else 2) * (forward - attention)
    again = forward_flops(shape, batch.again, batch.pairs_again, 0)
    recomputed = forward_flops(shape, batch.tokens, batch.pairs, 0) if checkpointing else 0.0
    return forward + backward + again + recomputed


def update_seconds(machine: Machine, batch: BatchTokens) -> dict[str, float]:
    """Of one update without sampling."""
    recipe, shape, device = machine.recipe, machine.shape, machine.device
    checkpointing = recipe.model.gradient_checkpointing
    flops = update_flops(shape, batch, checkpointing=checkpointing)
    passes = batch.passes * (4 if checkpointing else 3) / machine.devices
    compute = flops / machine.rate(recipe.model.dtype, device.use_training)
    optimizer = 28 * shape.trained / machine.memory_rate
    return {
        "train": compute + passes * shape.layers * device.seconds_per_layer + optimizer,
        "communicate": communication_bytes(shape, batch.passes, machine.devices) / machine.link_rate,
    }


def forward_seconds(machine: Machine, batch: BatchTokens) -> float:
    """Of log-probabilities alone: those that an update starts from, or a reference's."""
    shape, device = machine.shape, machine.device
    flops = forward_flops(shape, batch.tokens, batch.pairs, batch.scored)
    passes = batch.passes / machine.devices
    rate = machine.rate(machine.recipe.model.dtype, device.use_training)
    return flops / rate + passes * shape.layers * device.seconds_per_layer


def communication_bytes(shape: ModelShape, passes: float, devices: int) -> float:
    """Bytes that one device receives in an update under FSDP2: in each of its passes all weights twice, and gradients once."""
    if devices == 1:
        return 0.0
    return passes / devices * 4 * (2 * shape.parameters + shape.trained) * (devices - 1) / devices


def sampling_seconds(machine: Machine, work: Sampling) -> float:
    """Prompts go through the model once, at the rate of its arithmetic; then each token of an answer costs its arithmetic, its
    reading of keys and values, and its share of reading the weights."""
    recipe, shape, device = machine.recipe, machine.shape, machine.device
    if work.prompts == 0:
        return 0.0
    served = served_bytes(recipe)
    rate = machine.rate("bfloat16" if served == 2 else "float32", device.use_prefill)
    tensor_parallel = recipe.sampling.vllm.tensor_parallel
    engines = max(1.0, machine.devices / tensor_parallel)
    length = work.context + work.answer_tokens
    pairs = work.prompt_tokens * work.context / 2
    prefill = forward_flops(shape, work.prompt_tokens, pairs, work.prompts) / rate
    tokens = work.prompts * work.samples * work.answer_tokens
    arithmetic = forward_flops(shape, tokens, tokens * length, tokens) / rate
    reading = tokens * (work.context + work.answer_tokens / 2) * kv_bytes(shape, served) / machine.memory_rate
    weights = served * (shape.matmul + shape.head) / (machine.memory_rate / machine.devices * tensor_parallel)
    sequences = work.prompts * work.samples / engines
    if recipe.sampling.engine == "transformers":
        # Whole prompts with all their samples at a time, until the longest has ended.
        size = work.context + work.samples * work.longest
        at_once = max(1, int(cache_tokens(recipe, shape, device) / size)) * work.samples
        lasting: float = work.longest
        weights += shape.layers * device.seconds_per_layer
    else:
        at_once = max(1, min(MAX_SEQUENCES, int(cache_tokens(recipe, shape, device) / length)))
        lasting = work.answer_tokens
    passes = math.ceil(sequences / min(at_once, sequences)) * lasting
    return prefill + arithmetic + reading + passes * weights


def reward_seconds(recipe: Recipe, costs: Costs, answers: float) -> float:
    """Of scoring sampled answers, on one host."""
    rewards, unit = recipe.rewards, costs.rewards
    each = unit.similarity * bool(rewards.similarity) + unit.functional * bool(rewards.functional)
    if rewards.effect is not None:
        each += unit.effect / rewards.effect.workers
    return answers * each


def rollout_seconds(
    machine: Machine, unit: RolloutSeconds, stage: OutcomeStage, rollouts: float, turns: float, work: Sampling
) -> dict[str, float]:
    """Of an update's rollouts: `workers` at a time go in step, a round of sampling and a round of commands after the other, and
    are tested together, as if none solved its task.

    work: all answers of the update, each a prompt of its own.
    """
    waves = math.ceil(rollouts / stage.workers)
    rounds = waves * turns
    each = replace(work, prompts=work.prompts / rounds, prompt_tokens=work.prompt_tokens / rounds)
    return {
        "sample": rounds * sampling_seconds(machine, each),
        "commands": waves * unit.sandbox + rounds * unit.command,
        "tests": waves * (1 + stage.reruns) * unit.tests,
    }


def new_weights_seconds(machine: Machine) -> float:
    """Of handing new weights to the sampler."""
    if machine.recipe.sampling.engine == "transformers":
        return 0.0
    return served_bytes(machine.recipe) * machine.shape.parameters / (machine.device.new_weights_gb_s * GB)


def checkpoint_seconds(machine: Machine) -> float:
    """Of one checkpoint: what is trained, and twice as much of the optimizer's."""
    return 12 * machine.shape.trained / (machine.device.disk_gb_s * GB)


def draws(size: int, informative: float, max_refills: int) -> tuple[float, float]:
    """Groups drawn for a batch, and groups kept: each refill asks for what is still missing."""
    missing, drawn = float(size), 0.0
    for _ in range(max_refills + 1):
        drawn += missing
        missing *= 1 - informative
    return drawn, size - missing
