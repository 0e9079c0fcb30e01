"""Where batches come from: the order of steps, and going on from a remembered place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hand_made import trajectory

from swe_srl.config import SamplingSection, SftStage, SrlStage
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.format import render_action
from swe_srl.training.batches import Batches, SftBatches, SrlBatches
from swe_srl.training.data import TrainingStep


def items(*lengths: int) -> list[TrainingStep]:
    """Steps of trajectories of some lengths; a prompt is (trajectory, step)."""
    runs = [trajectory(f"t{index}", f"task-{index}", ["ls"] * length) for index, length in enumerate(lengths)]
    return [
        TrainingStep(step, render_action(step.action), [index, step.k], [7, 8])
        for index, run in enumerate(runs)
        for step in run.steps()
    ]


class Echo:
    """Answers with the seed of the draw, so that a batch shows what it was drawn with; every second answer is right."""

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        right = f"<think>\nx\n</think>\n{items(1)[0].expert}"
        return [
            [Sample((options.seed, *prompt), (-1.0,) * 3, right if n % 2 else "", "stop") for n in range(options.n)]
            for prompt in prompts
        ]

    def update_weights(self, checkpoint: Path | None) -> None:
        raise AssertionError


def drawn(batches: Batches, count: int) -> list[list[tuple[object, ...]]]:
    return [[(*e.prompt_ids, *e.answer_ids) for e in next(batches).examples] for _ in range(count)]


def sft(*lengths: int) -> SftBatches:
    return SftBatches(SftStage(objective="sft", updates=1, lr=1.0, steps_per_update=3), items(*lengths), "seed")


def srl(*lengths: int) -> SrlBatches:
    stage = SrlStage(objective="srl", updates=1, lr=1.0, steps_per_update=3)
    return SrlBatches(stage, items(*lengths), Echo(), SamplingSection(samples=2), "seed")


def test_a_source_goes_on_where_another_was() -> None:
    for make in (sft, srl):
        whole, begun, resumed = make(4, 3), make(4, 3), make(4, 3)
        expected = drawn(whole, 7)
        assert drawn(begun, 4) == expected[:4]
        resumed.restore(json.loads(json.dumps(begun.state())))
        assert drawn(resumed, 3) == expected[4:]
