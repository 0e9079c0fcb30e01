"""Where the examples of an update come from: the expert's answers (sft) or sampled groups with advantages (srl).

Invariant: both are endless in the seeded order of the stage, and their place in it is a few numbers: one loop trains either,
and goes on where another left off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, Protocol

from swe_srl.config import SamplingSection, SftStage, SrlStage
from swe_srl.policy.base import Sampler
from swe_srl.rewards.compose import Rewards
from swe_srl.training.data import TrainingStep, step_order
from swe_srl.training.filtering import usable
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


class Batches(Protocol):
    """An endless source of batches."""

    def __next__(self) -> Batch:
        """The next update's."""
        ...

    def state(self) -> dict[str, int]:
        """All that the next batches depend on besides the policy."""
        ...

    def restore(self, state: Mapping[str, int]) -> None:
        """Go to where another source of the same recipe was."""
        ...


class SftBatches:
    """The expert's whole answers, `steps_per_update` at a time."""

    def __init__(self, stage: SftStage, items: Sequence[TrainingStep], seed: str) -> None:
        self.stage, self.items, self.order = stage, items, step_order(items, stage, seed)

    def __next__(self) -> Batch:
        """See `Batches`."""
        taken = [self.items[index] for index in self.order.take(self.stage.steps_per_update)]
        lengths = [len(item.target_ids) for item in taken]
        metrics = {"answer_tokens_mean": fmean(lengths), "answer_tokens_max": max(lengths)}
        return Batch([Example(item.prompt_ids, item.target_ids) for item in taken], metrics)

    def state(self) -> dict[str, int]:
        """See `Batches`."""
        return {"position": self.order.position}

    def restore(self, state: Mapping[str, int]) -> None:
        """See `Batches`."""
        self.order.position = state["position"]


class SrlBatches:
    """Sampled groups, filled up by dynamic sampling, with their advantages."""

    def __init__(
        self,
        stage: SrlStage,
        items: Sequence[TrainingStep],
        sampler: Sampler,
        sampling: SamplingSection,
        rewards: Rewards,
        seed: str,
    ) -> None:
        self.stage = stage
        self.source = GroupSource(items, step_order(items, stage, seed), sampler, sampling, rewards, seed)

    def __next__(self) -> Batch:
        """See `Batches`."""
        stage, filled = self.stage, self.source.batch(self.stage)
        examples = examples_of(usable(filled, size=stage.steps_per_update, exhausted=stage.exhausted), stage)
        return Batch(examples, group_metrics(filled, stage), group_records(filled, stage), dict(self.source.seconds))

    def state(self) -> dict[str, int]:
        """See `Batches`."""
        return {"position": self.source.order.position, "draws": self.source.draws}

    def restore(self, state: Mapping[str, int]) -> None:
        """See `Batches`."""
        self.source.order.position, self.source.draws = state["position"], state["draws"]
