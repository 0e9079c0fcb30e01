from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards import arguments_similarity, similarity
from swe_srl.scaffolds.base import Action, ToolCall


def bash(*commands: str) -> Action:
    return Action(tuple(ToolCall("bash", {"command": command}) for command in commands))


def edit(**arguments: Any) -> Action:
    return Action((ToolCall("edit", arguments),))


@given(st.text(max_size=40), st.text(max_size=40))
def test_one_argument_is_compared_as_text(expert: str, sample: str) -> None:
    assert arguments_similarity(bash(expert), bash(sample)) == similarity(expert, sample)


def test_the_tags_two_commands_share_do_not_count() -> None:
    assert arguments_similarity(bash("ls"), bash("pwd")) == 0.0


def test_fields_are_added_up() -> None:
    # path: 4 of 4 and 4; old: 1 of 2 and 2 characters match.
    assert arguments_similarity(edit(path="a.py", old="ab"), edit(path="a.py", old="ac")) == 2 * 5 / 12


def test_an_argument_of_one_side_alone_is_unmatched() -> None:
    assert arguments_similarity(edit(path="a.py"), edit(path="a.py", new="xy")) == 2 * 4 / 10


def test_other_values_are_compared_as_json() -> None:
    assert arguments_similarity(edit(lines=[1, 20]), edit(lines=[1, 30])) == 2 * 6 / 14


@pytest.mark.parametrize(
    ("expert", "sample", "value"),
    [
        (bash("ls"), Action((ToolCall("shell", {"command": "ls"}),)), 0.0),
        (Action((ToolCall("submit", {}),)), Action((ToolCall("submit", {}),)), 1.0),
        (bash("ls"), Action(), 0.0),
        (Action(), Action(), 1.0),
    ],
)
def test_tools_and_calls(expert: Action, sample: Action, value: float) -> None:
    assert arguments_similarity(expert, sample) == value


def test_parallel_calls_are_matched_one_to_one() -> None:
    assert arguments_similarity(bash("ls", "pwd"), bash("pwd", "ls")) == 1.0
    assert arguments_similarity(bash("ls", "pwd"), bash("ls")) == 0.5
    assert arguments_similarity(bash("ls"), bash("ls", "ls")) == 0.5
