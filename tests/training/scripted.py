"""A sampler that answers from a script, and short runs of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from swe_srl.config import Recipe
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.training.summary import RunSummary
from swe_srl.training.trainer import train

EXACT = "<think>\nx\n</think>\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
OTHER = "<think>\nx\n</think>\n<function=bash>\n<parameter=command>rm -r build</parameter>\n</function>"
INVALID = "ls"


class ScriptedSampler:
    """Answers from a script of groups, one a prompt, in the order drawn; greedy evaluation gets the exact answer."""

    script: Sequence[Sequence[str]] = ()
    asked: ClassVar[list[tuple[int, SamplingOptions]]] = []

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.groups = iter(self.script)
        self.updates = 0

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        self.asked.append((len(prompts), options))
        if options.temperature == 0:
            return [[self._sample(EXACT)] for _ in prompts]
        return [[self._sample(text) for text in next(self.groups)] for _ in prompts]

    def update_weights(self, checkpoint: Path | None) -> None:
        self.updates += 1

    def take_weights(self) -> None: ...

    def report(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...

    def _sample(self, text: str) -> Sample:
        ids = [*self.tokenizer(text)["input_ids"], self.tokenizer.eos_token_id]
        return Sample(tuple(ids), (0.0,) * len(ids), text, "stop")


def run(recipe: Recipe, out: Path, **options: Any) -> RunSummary:
    return train(recipe, out, console=Console(quiet=True), **options)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in m.items() if key not in ("seconds", "peak_memory_mb")} for m in metrics]


def with_stage(recipe: Recipe, index: int, **options: Any) -> Recipe:
    """Only that stage, with other options."""
    return recipe.model_copy(update={"stages": [recipe.stages[index].model_copy(update=options)]})
