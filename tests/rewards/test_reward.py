from __future__ import annotations

import pytest

from swe_srl.rewards import INVALID, score_answer, similarity
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.model import Step, Trajectory, Turn

BASH = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}, "required": ["command"]}},
}
THINK = "<think>\nLook.\n</think>\n"


def xml(command: str) -> str:
    return f"<function=bash>\n<parameter=command>{command}</parameter>\n</function>"


def expert(*commands: str) -> Step:
    turn = Turn("agent", "", "secret thought", Action(tuple(ToolCall("bash", {"command": c}) for c in commands)))
    return Step(Trajectory("t", "task", "mini-swe-agent", "test", (turn,)), 0, 0)


def test_the_experts_action_earns_one_whatever_the_thought() -> None:
    for thought in ("secret thought", "something else"):
        scored = score_answer(expert("ls"), f"<think>{thought}</think>{xml('ls')}\n", "stop", [BASH])
        assert (scored.reward, scored.similarity) == (1.0, 1.0)
        assert scored.answer.thought == thought


def test_another_action_earns_its_similarity() -> None:
    scored = score_answer(expert("ls -l"), THINK + xml("ls -la"), "stop", [BASH])
    length = len(xml("ls -l"))
    assert scored.reward == scored.similarity == 2 * length / (2 * length + 1)


def test_the_experts_text_comes_first() -> None:
    scored = score_answer(expert("diet"), THINK + xml("tide"), "stop", [BASH])
    assert scored.reward == similarity(xml("diet"), xml("tide")) != similarity(xml("tide"), xml("diet"))


def test_the_action_is_compared_as_written() -> None:
    written = "<function=bash><parameter=command>ls</parameter></function>"
    scored = score_answer(expert("ls"), THINK + written, "stop", [BASH])
    assert scored.reward == similarity(xml("ls"), written) == 2 * len(written) / (2 * len(written) + 2)


@pytest.mark.parametrize(
    ("text", "finish", "error"),
    [
        (xml("ls"), "stop", "missing think"),
        (THINK + xml("ls") + xml("ls"), "stop", "several actions"),
        (THINK + xml("ls"), "length", "truncated output"),
        (THINK, "stop", "no action"),
    ],
)
def test_an_invalid_answer_earns_minus_one(text: str, finish: str, error: str) -> None:
    scored = score_answer(expert("ls"), text, finish, [BASH])
    assert (scored.reward, scored.similarity, scored.answer.error) == (INVALID, None, error)
    assert INVALID == -1.0


def test_an_expert_with_several_calls_is_compared_as_text() -> None:
    scored = score_answer(expert("ls", "pwd"), THINK + xml("ls"), "stop", [BASH])
    one, two = len(xml("ls")), len(xml("pwd"))
    assert scored.reward == 2 * one / (one + one + 1 + two)


def test_an_expert_that_cannot_be_written_is_refused_even_for_an_invalid_answer() -> None:
    with pytest.raises(ValueError, match="</parameter>"):
        score_answer(expert("echo </parameter>"), "", "stop", [BASH])
