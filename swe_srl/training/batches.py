"""Where the examples of an update come from: the expert's answers (sft) or sampled groups with advantages (srl).

Invariant: both are endless generators of `Batch` in the seeded order of the stage, so one loop trains either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from swe_srl.config import SamplingSection, SftStage, SrlStage
from swe_srl.policy.base import Sampler
from swe_srl.rewards.compose import Rewards
from swe_srl.training.data import StepOrder, TrainingStep
from swe_srl.training.groups import GroupSource, examples_of, group_metrics, group_records
from swe_srl.training.logprobs import Example


@dataclass(frozen=True, slots=True)
class Batch:
    """The examples of one update and what is to be written about them."""

    examples: Sequence[Example]
    """Empty where no group was informative: the update is skipped."""
    metrics: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self, tokenizer: Any) -> list[dict[str, Any]]:
        """The examples for a person who looks for what went wrong."""
        return [
            {
                "advantage": example.advantage,
                "prompt_ids": list(example.prompt_ids),
                "answer_ids": list(example.answer_ids),
                "answer": tokenizer.decode(list(example.answer_ids)),
            }
            for example in self.examples
        ]


def sft_batches(stage: SftStage, items: Sequence[TrainingStep], seed: str) -> Iterator[Batch]:
    """The expert's whole answers, `steps_per_update` at a time."""
    order = StepOrder(len(items), seed)
    while True:
        taken = [items[index] for index in order.take(stage.steps_per_update)]
        lengths = [len(item.target_ids) for item in taken]
        metrics = {"answer_tokens_mean": fmean(lengths), "answer_tokens_max": max(lengths)}
        yield Batch([Example(item.prompt_ids, item.target_ids) for item in taken], metrics)


def srl_batches(
    stage: SrlStage,
    items: Sequence[TrainingStep],
    sampler: Sampler,
    sampling: SamplingSection,
    rewards: Rewards,
    seed: str,
) -> Iterator[Batch]:
    """Sampled groups, filled up by dynamic sampling, with their advantages."""
    source = GroupSource(items, StepOrder(len(items), seed), sampler, sampling, rewards, seed)
    while True:
        filled = source.batch(stage)
        yield Batch(
            examples_of(filled.kept, stage), group_metrics(filled, stage), group_records(filled, stage), dict(source.seconds)
        )
