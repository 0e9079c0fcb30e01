"""The memory of one device, part by part; the formulae are in docs/planning.md.

Invariant: pure arithmetic on a model's shape and a batch's tokens. Bytes; over several devices everything trained is sharded.
"""

from __future__ import annotations

from swe_srl.config import Recipe
from swe_srl.planning.costs import GIB, Device
from swe_srl.planning.shape import ModelShape
from swe_srl.planning.tokens import BatchTokens
from swe_srl.training.tree.head import LOGITS_AT_ONCE

TRANSFORMERS_TOKENS = 32_768
"""`TransformersSampler`'s `batch_tokens`."""


def training_memory(recipe: Recipe, shape: ModelShape, batch: BatchTokens, devices: int, share: float) -> dict[str, float]:
    """Bytes on one of `devices`, by part.

    Args:
        batch: the stage's largest.
        share: of the batch's trunk keys and values that one device holds; 1 where trajectories are not cut.
    """
    arithmetic = 2 if recipe.model.dtype == "bfloat16" else 4
    matrices = shape.matmul + shape.head
    copies = 2.0 * matrices if arithmetic == 2 else 0.0
    if devices > 1 or (shape.trained < shape.parameters and recipe.model.gradient_checkpointing):
        # Copies live as long as the layer that uses them.
        copies = copies / shape.layers
    gathered = 4 * (shape.parameters - shape.matmul + shape.matmul / shape.layers) if devices > 1 else 0
    return {
        "weights": 4 * shape.parameters / devices + gathered + copies,
        "gradients": 4 * shape.trained / devices,
        "optimizer": 8 * shape.trained / devices,
        "activations": activations(recipe, shape, batch),
        "trunk K/V": share * batch.path * kv_bytes(shape, arithmetic + 4),
    }


def activations(recipe: Recipe, shape: ModelShape, batch: BatchTokens) -> float:
    """Bytes that backward needs of the tokens that are held at once, and of the logits."""
    arithmetic = 2 if recipe.model.dtype == "bfloat16" else 4
    layer = layer_bytes(shape, arithmetic)
    # Checkpointing keeps what goes into each layer, in float32, and of one layer everything.
    checkpointed = 4.0 * shape.hidden * shape.layers + layer
    per_token = checkpointed if recipe.model.gradient_checkpointing else layer * shape.layers
    logits = min(LOGITS_AT_ONCE["cuda"], batch.scored * shape.vocabulary) * (arithmetic + 2 * 4)
    return batch.held * per_token + logits


def layer_bytes(shape: ModelShape, arithmetic: int) -> float:
    """Bytes that one layer keeps of one token for its backward.

    Two norms, in float32 whatever the arithmetic: what goes in, and what comes out before its weight. Then, in the arithmetic:
    what goes into the matrices (hidden twice, the attention's output, the feed-forward part's product), queries and keys before
    and after their rotation, values, and gate, its activation and up.
    """
    norms = 2 * (4 + 4) * shape.hidden
    matrices = arithmetic * (2 * shape.hidden + shape.queries + shape.inner)
    attention = arithmetic * (2 * shape.queries + 2 * shape.keys + shape.keys)
    return norms + matrices + attention + arithmetic * 3 * shape.inner


def kv_bytes(shape: ModelShape, each: int) -> float:
    """Bytes of one token's keys and values in all layers, `each` for a number."""
    return float(2 * shape.keys * shape.layers * each)


def sampler_memory(recipe: Recipe, shape: ModelShape, device: Device) -> float:
    """Bytes that sampling adds on one device."""
    section = recipe.sampling.vllm
    if recipe.sampling.engine == "transformers":
        weights = 4.0 * shape.parameters if recipe.sampling.has_engines else 0.0
        return weights + TRANSFORMERS_TOKENS * kv_bytes(shape, 4)
    if recipe.sampling.engine == "vllm-server":
        return 0.0  # of its own devices
    if section.gpu_memory_utilization is not None:
        return section.gpu_memory_utilization * device.memory_gib * GIB
    weights = served_bytes(recipe) * shape.parameters / section.tensor_parallel
    cache = section.kv_cache_gib if section.kv_cache_gib is not None else 2.0
    if section.kv_cache_gib is None and device.kind == "gpu":
        return 0.92 * device.memory_gib * GIB  # vLLM's default
    return weights + cache * GIB


def served_bytes(recipe: Recipe) -> int:
    """Bytes of a served weight."""
    return 2 if recipe.sampling.engine != "transformers" and recipe.sampling.vllm.dtype == "bfloat16" else 4


def cache_tokens(recipe: Recipe, shape: ModelShape, device: Device) -> float:
    """Tokens whose keys and values a sampler holds at a time, on one device's share of it."""
    if recipe.sampling.engine == "transformers":
        return TRANSFORMERS_TOKENS
    if recipe.sampling.engine == "vllm-server":
        room = 0.5 * device.memory_gib * GIB  # a server's own command says; half a device is assumed
    else:
        weights = served_bytes(recipe) * shape.parameters / recipe.sampling.vllm.tensor_parallel
        room = sampler_memory(recipe, shape, device) - weights
    return max(0.0, room * recipe.sampling.vllm.tensor_parallel / kv_bytes(shape, served_bytes(recipe)))


def together(training: dict[str, float], sampler: float, *, in_turns: bool) -> float:
    """The peak. In turns: what one batch's backward needs is gone while answers are sampled, and the sampler's memory after."""
    backward = training["activations"] + training["trunk K/V"] + training["gradients"]
    kept = training["weights"] + training["optimizer"]
    return kept + (max(backward, sampler) if in_turns else backward + sampler)
