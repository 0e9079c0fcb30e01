"""Tiny random models of several families, batches shaped like trees, and what an engine makes of them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from swe_srl.training.logprobs import BackwardResult, Engine, Example, Rows
from swe_srl.training.losses import grpo_loss, sft_loss

VOCABULARY = 331
FAMILIES: dict[str, dict[str, Any]] = {
    "glm4": {"head_dim": 16},
    "granite": {},
    "llama": {},
    "mistral": {"sliding_window": None},
    "mixtral": {"num_local_experts": 4},
    "olmo2": {},
    "phi3": {},
    "qwen2": {},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 48},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "head_dim": 16},
    "smollm3": {},
}
MIXED = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
WINDOWED: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 16, **MIXED},
    "gpt_oss": {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, **MIXED},
    "mistral": {"sliding_window": 24},
    "mixtral": {"num_local_experts": 4, "sliding_window": 24},
    "olmo3": MIXED,
    "phi3": {"sliding_window": 24},
    "qwen2": {"use_sliding_window": True, **MIXED},
    "qwen3": {"head_dim": 16, "use_sliding_window": True, **MIXED},
}
"""Windows shorter than the branches' way into their trunks."""


def tiny_model(family: str = "llama", **settings: Any) -> Any:
    """Four query heads on two key heads; weights large enough for attention to look somewhere."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    options = {**sizes, **heads, **ids, "initializer_range": 0.06, **FAMILIES.get(family, {}), **settings}
    implementation = "eager" if family == "gpt_oss" else "sdpa"
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**options), attn_implementation=implementation).train()


def windowed_model(family: str) -> Any:
    """A tiny model with sliding windows, its sinks of either sign."""
    model = tiny_model(family, **WINDOWED[family])
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            nn.init.normal_(parameter)
    return model


def random_ids(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(VOCABULARY) for _ in range(count)]


def bushy_batch(seed: int = 0) -> list[Example]:
    """Several trunks, one on another, uneven branches, prompts that leave their trunk, and answers that share nothing.

    Advantages are all different, so an example is known by its own.
    """
    rng = random.Random(seed)
    base, aside = random_ids(rng, 260), random_ids(rng, 90)
    prompts = [base[: 100 + 40 * k] + random_ids(rng, k % 3) for k in range(5) for _ in range(3)]
    child = base[:150] + aside
    prompts += [child, child, child[:-10] + random_ids(rng, 4), base[:110] + random_ids(rng, 80)]
    other = random_ids(rng, 80)
    prompts += [other, other, random_ids(rng, 30), [5], [7], [7]]
    return [Example(p, random_ids(rng, rng.randint(1, 17)), rng.uniform(-2, 2)) for p in prompts]


@dataclass(frozen=True)
class Outcome:
    result: BackwardResult
    logprobs: dict[float, torch.Tensor]
    """By advantage."""
    gradients: dict[str, torch.Tensor]


def outcome(engine: Engine, model: Any, examples: list[Example]) -> Outcome:
    """A loss in which both the advantages and the lengths count."""
    logprobs: dict[float, torch.Tensor] = {}

    def loss_fn(logprobs_B_T: torch.Tensor, rows: Rows) -> torch.Tensor:
        mask_B_T, advantages_B = rows.mask_B_T, rows.advantages_B
        for row, mask, advantage in zip(logprobs_B_T.detach(), mask_B_T, advantages_B, strict=True):
            logprobs[advantage.item()] = row[mask]
        policy = grpo_loss(logprobs_B_T, logprobs_B_T.detach(), mask_B_T, advantages_B, clip_low=0.2, clip_high=0.2)
        return policy + sft_loss(logprobs_B_T, mask_B_T)

    model.zero_grad()
    result = engine.backward(model, examples, loss_fn)
    assert len(logprobs) == len(examples)
    return Outcome(result, logprobs, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def distance(found: Outcome, expected: Outcome) -> tuple[float, float]:
    """Largest difference of a log-probability, and of a gradient entry relative to the largest entry."""
    assert found.logprobs.keys() == expected.logprobs.keys()
    assert found.gradients.keys() == expected.gradients.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.gradients.values())
    logprob = max((found.logprobs[key] - value).abs().max().item() for key, value in expected.logprobs.items())
    gradient = max((found.gradients[name] - value).abs().max().item() for name, value in expected.gradients.items())
    return logprob, gradient / largest
