from __future__ import annotations

import re
from pathlib import Path

import pytest

from swe_srl.policy import format as answer_format
from swe_srl.policy.format import parse_answer
from swe_srl.rewards import invalid_reward
from swe_srl.rewards.validity import GRADES

BASH = {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}, "required": ["command"]}}
THINK = "<think>Look.</think>"
LS = "<function=bash><parameter=command>ls</parameter></function>"


@pytest.mark.parametrize(
    ("text", "kind", "graded"),
    [
        ("", "missing think", -1.0),
        (LS, "missing think", -1.0),
        ("<think>Look." + LS, "unclosed think", -1.0),
        ("<think> </think>" + LS, "empty think", -1.0),
        ("<think>a<think>b</think></think>" + LS, "nested think", -1.0),
        (THINK + THINK + LS, "repeated think", -1.0),
        (THINK, "no action", -0.8),
        (THINK + "First: " + LS, "text before the action", -0.8),
        (THINK + LS + LS, "several actions", -0.8),
        (THINK + LS[:-11], "malformed action", -0.6),
        (THINK + LS.replace("bash", "zsh"), "unknown tool", -0.4),
        (THINK + LS.replace("=command", "=script"), "unknown parameter", -0.4),
        (THINK + "<function=bash></function>", "missing parameter", -0.4),
        (THINK + LS + " Done.", "text after the action", -0.2),
    ],
)
def test_each_way_to_break_the_format(text: str, kind: str, graded: float) -> None:
    answer = parse_answer(text, [BASH])
    assert answer.error_kind == kind
    assert invalid_reward(answer) == -1.0
    assert invalid_reward(answer, "graded") == pytest.approx(graded)


def test_a_truncated_answer_is_worth_minus_one_either_way() -> None:
    answer = parse_answer(THINK + LS, [BASH], truncated=True)
    assert invalid_reward(answer) == invalid_reward(answer, "graded") == -1.0


def test_a_valid_answer_is_not_judged_here() -> None:
    assert invalid_reward(parse_answer(THINK + LS, [BASH])) is None


def test_every_kind_of_error_has_a_grade_below_any_valid_answer() -> None:
    source = Path(answer_format.__file__).read_text()
    raised = set(re.findall(r'_FormatError\(\s*f?"([a-z ]+)', source)) | {"truncated output"}
    assert raised == set(GRADES)
    assert all(-1.0 <= grade < 0.0 for grade in GRADES.values())
