"""Where batches come from: the order of steps, and going on from a remembered place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from hand_made import trajectory

from swe_srl.config import RewardsSection, SamplingSection, SftStage, SrlStage
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.format import render_action
from swe_srl.rewards.compose import build_rewards
from swe_srl.training.batches import Batches, SftBatches, SrlBatches
from swe_srl.training.data import TrainingStep, step_order
from swe_srl.training.tree.planning import plan_tree


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
    return SrlBatches(stage, items(*lengths), Echo(), SamplingSection(samples=2), build_rewards(RewardsSection()), "seed")


def test_a_source_goes_on_where_another_was() -> None:
    for make in (sft, srl):
        whole, begun, resumed = make(4, 3), make(4, 3), make(4, 3)
        expected = drawn(whole, 7)
        assert drawn(begun, 4) == expected[:4]
        resumed.restore(json.loads(json.dumps(begun.state())))
        assert drawn(resumed, 3) == expected[4:]


def test_steps_come_in_random_order_or_trajectory_by_trajectory() -> None:
    steps = items(4, 1, 3)
    orders = {}
    for order in ("steps", "trajectories"):
        stage = SftStage(objective="sft", updates=1, lr=1.0, order=order)  # type: ignore[arg-type]
        taken = [steps[i].prompt_ids for i in step_order(steps, stage, "seed").take(16)]
        assert sorted(taken[:8]) == sorted(taken[8:]) == sorted(item.prompt_ids for item in steps)
        orders[order] = taken
    epochs = orders["trajectories"][:8], orders["trajectories"][8:]
    for epoch in epochs:
        runs = [list(group) for _, group in groupby(epoch, key=lambda ids: ids[0])]
        assert len(runs) == 3, "no trajectory is left before it is done"
        assert all([k for _, k in run] == list(range(len(run))) for run in runs)
    assert epochs[0] != epochs[1]
    assert len(list(groupby(orders["steps"][:8], key=lambda ids: ids[0]))) > 3


def test_an_order_by_trajectory_is_resumed_inside_one() -> None:
    stage = SrlStage(objective="srl", updates=1, lr=1.0, order="trajectories")
    whole, resumed = step_order(items(4, 3), stage, "seed"), step_order(items(4, 3), stage, "seed")
    expected = whole.take(20)
    resumed.position = 5
    assert resumed.take(15) == expected[5:]
    assert step_order(items(4, 3), stage, "other").take(40) != step_order(items(4, 3), stage, "seed").take(40)


def test_a_batch_of_a_trajectory_is_mostly_shared_and_a_random_one_is_not() -> None:
    # Whole-prefix prompts: step k of a trajectory begins with all tokens of step k - 1.
    runs = [trajectory(f"t{index}", f"task-{index}", ["ls"] * 16) for index in range(16)]
    steps = [
        TrainingStep(step, "x", [index] * (100 * (step.k + 1)), [7] * 10)
        for index, run in enumerate(runs)
        for step in run.steps()
    ]
    tokens = {}
    for order in ("steps", "trajectories"):
        stage = SftStage(objective="sft", updates=1, lr=1.0, order=order, steps_per_update=16)  # type: ignore[arg-type]
        examples = next(SftBatches(stage, steps, "seed")).examples
        trunks = plan_tree([e.prompt_ids for e in examples], [e.answer_ids for e in examples]).walk()
        once = sum(len(t.ids) + sum(len(b.ids) for b in t.branches) for t in trunks)
        tokens[order] = once, sum(map(len, examples))
    # One trajectory: a trunk of 1,599 tokens and 16 branches of the prompt's last token and 10 of the answer.
    assert tokens["trajectories"] == (1599 + 16 * 11, sum(100 * k + 10 for k in range(1, 17)))
    assert tokens["steps"][0] > 4 * tokens["trajectories"][0]
