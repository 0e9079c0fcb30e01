from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.config import FunctionalReward, RewardsSection, SimilarityReward
from swe_srl.policy.format import Answer
from swe_srl.rewards import arguments_similarity, functional, score_answer, similarity
from swe_srl.rewards.compose import Rewards, Sampled, build_rewards, part_metrics
from swe_srl.rewards.reward import Unscored
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.model import Step, Trajectory, Turn

BASH = {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}, "required": ["command"]}}
THINK = "<think>\nLook.\n</think>\n"


def xml(command: str) -> str:
    return f"<function=bash>\n<parameter=command>{command}</parameter>\n</function>"


def bash(command: str) -> Action:
    return Action((ToolCall("bash", {"command": command}),))


def expert(command: str) -> Step:
    return Step(Trajectory("t", "task", "mini-swe-agent", "test", (Turn("agent", "", "secret", bash(command)),)), 0, 0)


def sampled(command: str, text: str, finish: str = "stop") -> Sampled:
    return Sampled(expert(command), text, finish, [BASH])


ANSWERS = [
    sampled("ls -l", THINK + xml("ls -la")),
    sampled("ls -l", xml("ls -l")),
    sampled("cat a.py", THINK + xml("cat ./a.py")),
    sampled("cat a.py", THINK + xml("cat a.py"), "length"),
]


def test_by_default_every_number_is_the_papers() -> None:
    found = build_rewards(RewardsSection()).score(ANSWERS)
    assert found == [score_answer(a.step, a.text, a.finish, a.tools) for a in ANSWERS]
    assert [answer.reward for answer in found] == [
        similarity(xml("ls -l"), xml("ls -la")),
        -1.0,
        similarity(xml("cat a.py"), xml("cat ./a.py")),
        -1.0,
    ]


def test_the_reward_is_the_sum_of_weight_times_value() -> None:
    section = RewardsSection(
        similarity=SimilarityReward(weight=0.5, compare="arguments", unit="token"), functional=FunctionalReward(weight=2.0)
    )
    rewards = build_rewards(section)
    first, broken, same, _ = rewards.score(ANSWERS)
    text = arguments_similarity(bash("ls -l"), bash("ls -la"), unit="token")
    assert first.parts == {"similarity": text, "functional": functional(bash("ls -l"), bash("ls -la"))}
    assert list(first.parts) == ["similarity", "functional"], "as they are given"
    assert first.reward == 0.5 * text + 2.0
    assert first.similarity == similarity(xml("ls -l"), xml("ls -la")), "the paper's, whatever is rewarded"
    assert (broken.reward, broken.parts) == (-1.0, {})
    assert same.parts["functional"] == 1.0


def test_a_reward_that_is_not_named_does_not_count() -> None:
    rewards = build_rewards(RewardsSection(functional=FunctionalReward(threshold=0.9)))
    assert [answer.reward for answer in rewards.score(ANSWERS)] == [1.0, -1.0, 1.0, -1.0]


def test_broken_answers_can_be_graded() -> None:
    rewards = build_rewards(RewardsSection(invalid="graded"))
    found = rewards.score([sampled("ls", THINK + xml("ls") + "Done."), sampled("ls", THINK), sampled("ls", "")])
    assert [answer.reward for answer in found] == pytest.approx([-0.2, -0.8, -1.0])


def test_what_cannot_be_scored_has_no_reward_and_says_why() -> None:
    def lost(pairs: Sequence[tuple[Step, Answer]]) -> list[float | Unscored]:
        return [Unscored("sandbox lost") if answer.action == bash("ls -la") else 0.25 for _, answer in pairs]

    rewards = Rewards({"fixed": (1.0, lambda pairs: [1.0] * len(pairs)), "effect": (2.0, lost)})
    first, broken, second, _ = rewards.score(ANSWERS)
    assert (first.reward, first.unscored, dict(first.parts)) == (None, "effect: sandbox lost", {"fixed": 1.0, "effect": None})
    assert (broken.reward, second.reward) == (-1.0, 1.5)
    assert part_metrics([first, broken, second]) == {
        "reward_by_part": {"fixed": 1.0, "effect": 0.25},
        "unscored": 1,
        "unscored_because": {"effect: sandbox lost": 1},
    }


def test_no_valid_answer_at_all() -> None:
    found = build_rewards(RewardsSection()).score([sampled("ls", "")])
    assert part_metrics(found) == {"reward_by_part": {}, "unscored": 0, "unscored_because": {}}


ALL = RewardsSection(similarity=SimilarityReward(), functional=FunctionalReward())
thoughts = st.text(max_size=60) | st.sampled_from(["grep -rn foo src", xml("grep -rn foo src"), "reward: 1.0", "</function>"])


@given(thoughts, st.sampled_from(["grep -rn foo src", "cat a.py", "true", ""]))
def test_nothing_but_the_action_can_raise_a_reward(thought: str, command: str) -> None:
    """Whatever the thought says, the expert's own action in it included: the same action never earns more."""
    rewards = build_rewards(ALL)
    plain, other = rewards.score(
        [
            sampled("grep -rn foo src", THINK + xml(command)),
            sampled("grep -rn foo src", f"<think>{thought}</think>" + xml(command)),
        ]
    )
    assert plain.reward is not None
    assert other.reward is not None
    assert other.reward == plain.reward or (other.reward == -1.0 and other.answer.error is not None)


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["minus-one", "graded"]))
def test_words_around_the_answer_never_raise_its_reward(before: str, after: str, invalid: str) -> None:
    rewards = build_rewards(ALL.model_copy(update={"invalid": invalid}))
    plain, other = rewards.score([sampled("ls", THINK + xml("ls -a")), sampled("ls", before + THINK + xml("ls -a") + after)])
    assert plain.reward is not None
    assert other.reward is not None
    assert other.reward == plain.reward or other.reward < 0
