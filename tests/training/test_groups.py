from __future__ import annotations

from collections.abc import Sequence

from swe_srl.config import SrlStage
from swe_srl.policy.base import Sample
from swe_srl.policy.format import Answer
from swe_srl.rewards.compose import Rewards
from swe_srl.rewards.reward import Unscored
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.training.data import TrainingStep
from swe_srl.training.filtering import Filled
from swe_srl.training.groups import Group, examples_of, group_metrics, group_records, score
from swe_srl.trajectories.model import Step, Trajectory, Turn

STAGE = SrlStage(objective="srl", updates=1, lr=1e-5, steps_per_update=1)
STEP = Step(
    Trajectory("t", "task", "mini-swe-agent", "test", (Turn("agent", "", "", Action((ToolCall("bash", {"command": "ls"}),))),)),
    0,
    0,
)


def sample(command: str, token: int) -> Sample:
    text = f"<think>Look.</think><function=bash><parameter=command>{command}</parameter></function>"
    return Sample((token,), (0.0,), text, "stop")


def group_of(values: dict[str, float | Unscored]) -> Group:
    """A group whose samples run the named commands and are worth the given values."""

    def part(pairs: Sequence[tuple[Step, Answer]]) -> list[float | Unscored]:
        return [values[answer.action.call.arguments["command"]] for _, answer in pairs if answer.action]

    item = TrainingStep(STEP, "ls", [1, 2], ())
    samples = [sample(command, token) for token, command in enumerate(values, 10)]
    return score([item], [samples], Rewards({"effect": (1.0, part)}))[0]


LOST = Unscored("sandbox lost")


def test_an_unscored_sample_is_no_part_of_its_group() -> None:
    group = group_of({"a": 1.0, "b": LOST, "c": 0.0})
    assert group.rewards == group.valid_rewards == [1.0, 0.0]
    assert group.advantages(STAGE) == [1.0, None, -1.0]


def test_it_is_left_out_of_the_loss() -> None:
    examples = examples_of([group_of({"a": 1.0, "b": LOST, "c": 0.0})], STAGE)
    assert [(list(e.answer_ids), e.advantage) for e in examples] == [([10], 1.0), ([12], -1.0)]


def test_it_is_counted_and_never_taken_for_a_zero() -> None:
    kept, dropped = group_of({"a": 1.0, "b": LOST, "c": 0.5}), group_of({"d": LOST, "e": LOST})
    metrics = group_metrics(Filled([kept], [dropped]), STAGE)
    assert (metrics["reward_mean"], metrics["reward_std"]) == (0.75, 0.25)
    assert (metrics["reward_by_part"], metrics["unscored"]) == ({"effect": 0.75}, 3)
    assert metrics["unscored_because"] == {"effect: sandbox lost": 3}
    assert metrics["format_validity"] == 1.0


def test_a_draw_without_any_reward_has_no_mean() -> None:
    metrics = group_metrics(Filled([], [group_of({"d": LOST})]), STAGE)
    assert (metrics["reward_mean"], metrics["reward_std"]) == (None, None)


def test_the_record_holds_every_part() -> None:
    (record,) = group_records(Filled([group_of({"a": 1.0, "b": LOST})]), STAGE)
    assert [(s["reward"], s["parts"], s["unscored"], s["advantage"]) for s in record["samples"]] == [
        (1.0, {"effect": 1.0}, None, 0.0),
        (None, {"effect": None}, "effect: sandbox lost", None),
    ]
