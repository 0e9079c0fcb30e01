"""Models and batches to measure: one trajectory of N steps, G samples a step, token ids at random from a seed.

Step k's prompt is the first (k + 1) / N of the trajectory; every answer has the same length. A group's advantages sum to zero.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Ids = list[int]


@dataclass(frozen=True)
class Shape:
    """N, G, and lengths in tokens."""

    steps: int
    samples: int
    trunk: int
    branch: int

    @property
    def separate_tokens(self) -> int:
        """Tokens of all samples as sequences of their own."""
        return self.samples * sum(end + self.branch for end in self.ends)

    @property
    def ends(self) -> list[int]:
        """Length of each step's prompt."""
        return [self.trunk * (step + 1) // self.steps for step in range(self.steps)]


def batch(shape: Shape, vocabulary: int, seed: int = 0) -> dict[str, Any]:
    """`prompts` of each step, `answers` and `advantages` of each of its samples."""
    rng = random.Random(seed)

    def ids(count: int) -> Ids:
        return [rng.randrange(vocabulary) for _ in range(count)]

    trunk = ids(shape.trunk)
    return {
        "prompts": [trunk[:end] for end in shape.ends],
        "answers": [[ids(shape.branch) for _ in range(shape.samples)] for _ in range(shape.steps)],
        "advantages": [_centred([rng.gauss(0, 1) for _ in range(shape.samples)]) for _ in range(shape.steps)],
    }


def examples_of(made: Mapping[str, Any]) -> list[Any]:
    """A batch as the engines take it."""
    from swe_srl.training.logprobs import Example

    return [
        Example(prompt, answer, advantage)
        for prompt, answers, advantages in zip(made["prompts"], made["answers"], made["advantages"], strict=True)
        for answer, advantage in zip(answers, advantages, strict=True)
    ]


def _centred(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    return [value - mean for value in values]


def save_tiny(folder: Path) -> int:
    """A random 4-layer Qwen2 with a tokenizer that nothing is tokenised by; returns the size of its vocabulary."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=8192,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=65536,
        tie_word_embeddings=False,
        eos_token_id=1,
        pad_token_id=0,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(index): index for index in range(config.vocab_size)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="1").save_pretrained(folder)
    return config.vocab_size


def save_smollm2(folder: Path) -> int:
    """SmolLM2-135M-Instruct; returns the size of its vocabulary."""
    from swe_srl.policy.model import BUILTIN, load_policy

    model, tokenizer = load_policy(BUILTIN)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.config.vocab_size)


MODELS = {"tiny": save_tiny, "smollm2": save_smollm2}
