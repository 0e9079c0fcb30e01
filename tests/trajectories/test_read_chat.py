"""Chat messages: where calls, thoughts, observations and everything else end up, and that the messages come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_messages import ASK, assistant, call, tool
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.actions import parse_fenced, parse_xml
from swe_srl.trajectories.chat import Dialect, join_thoughts, read_turns, split_observation, to_messages
from swe_srl.trajectories.model import Turn
from swe_srl.trajectories.reader import DocumentError

LS = Action((ToolCall("bash", {"command": "ls"}, "c1"),))


def test_calls_thoughts_and_observations() -> None:
    messages = [
        {"role": "developer", "content": "Be good."},
        {"role": "user", "content": [{"type": "text", "text": "Fix "}, {"type": "text", "text": "it."}], "name": "me"},
        assistant("Look.", call("bash", {"command": "ls"}, index=0), reasoning_content="Hm.", function_call=None),
        tool("a.py", name="bash"),
    ]
    assert read_turns(messages) == [
        Turn("system", "Be good.", extra={"role": "developer"}),
        Turn("user", "Fix it.", extra={"name": "me"}),
        Turn(
            "agent",
            "Look.",
            "Hm.\n\nLook.",
            LS,
            Observation("a.py", extra={"name": "bash"}),
            extra={"reasoning_content": "Hm.", "tool_calls_rest": [{"index": 0}]},
        ),
    ]


def test_several_calls_of_an_answer_stay_together_with_all_that_answered_them() -> None:
    calls = [call("bash", {"command": "ls"}, "c1"), call("bash", {"command": "pwd"}, "c2")]
    messages = [ASK, assistant("Look.", *calls), tool("/testbed", "c2"), tool("a.py\n", "c1")]
    turn = read_turns(messages)[1]
    assert turn.action == Action((ToolCall("bash", {"command": "ls"}, "c1"), ToolCall("bash", {"command": "pwd"}, "c2")))
    assert turn.observation is not None
    assert turn.observation.text == "/testbed\na.py\n"
    assert split_observation(turn.observation) == [
        {"content": "/testbed", "tool_call_id": "c2"},
        {"content": "a.py\n", "tool_call_id": "c1"},
    ]
    assert to_messages([turn]) == messages[1:]


@pytest.mark.parametrize(
    ("written", "error"),
    [
        (call("bash", '{"command": '), "the arguments of bash are not a JSON object"),
        (call("bash", "[1]"), "the arguments of bash are not a JSON object"),
        (call("bash", '{"x": NaN}'), "the arguments of bash are not a JSON object"),
        (call("bash", '{"x": "\\ud800"}'), "the arguments of bash are not a JSON object"),
        ({"id": "c1", "function": {"arguments": "{}"}}, "tool call 1 has no function name"),
        ({"id": "c1", "type": "function"}, "tool call 1 has no function name"),
    ],
)
def test_malformed_calls_stay_in_the_context_and_are_no_steps(written: dict[str, Any], error: str) -> None:
    messages = [ASK, assistant("Look.", written), tool("Try again.", None), assistant("", call("bash", {"command": "ls"}))]
    turns = read_turns(messages)
    assert turns[1].action == Action(error=error)
    assert turns[1].extra == {"tool_calls": [written]}
    assert turns[1].observation == Observation("Try again.")
    assert [turn.is_step for turn in turns] == [False, False, True]
    assert to_messages(turns) == messages


def test_an_action_that_nothing_answered_was_never_executed_unless_it_is_the_last() -> None:
    first, last = call("bash", {"command": "ls"}, "c1"), call("submit", {}, "c2")
    turns = read_turns([ASK, assistant("", first), assistant("", last)])
    assert turns[1].action == Action(error="never executed: nothing answered it")
    assert turns[1].extra == {"tool_calls": [first]}
    assert turns[2].is_step


def test_demonstrations_are_context() -> None:
    turns = read_turns([{**ASK, "is_demo": True}, assistant("", call("bash", {}), is_demo=True), tool("x"), ASK])
    assert [(turn.context_only, turn.is_step) for turn in turns] == [(True, False), (True, False), (False, False)]


@pytest.mark.parametrize(
    ("fields", "thought"),
    [
        ({"content": "a"}, "a"),
        ({"content": "<think>\nb\n</think>\na"}, "b\n\na"),
        ({"content": "a", "reasoning_content": "b"}, "b\n\na"),
        ({"content": None, "reasoning": "b"}, "b"),
        ({"content": "a", "thinking_blocks": [{"type": "thinking", "thinking": "b"}], "reasoning_content": "b"}, "b\n\na"),
        ({"content": [{"type": "thinking", "thinking": "b"}, {"type": "text", "text": "a"}]}, "b\n\na"),
    ],
)
def test_thoughts_land_in_one_place(fields: dict[str, Any], thought: str) -> None:
    (turn,) = read_turns([{"role": "assistant", **fields, "tool_calls": [call("bash", {})]}])
    assert turn.thought.replace("\n\n\n", "\n\n") == thought
    assert turn.is_step


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([1], r"messages\[0\]: expected object, found number"),
        ([{"role": "robot"}], r"messages\[0\]\.role: expected system, user, assistant or tool, found 'robot'"),
        ([ASK, tool("x")], r"messages\[1\]: a tool's message where no tool was called"),
        ([ASK, assistant("Hi."), tool("x")], r"messages\[2\]: a tool's message where no tool was called"),
        ([{"role": "user", "content": {"a": 1}}], r"messages\[0\]\.content: expected array, found object"),
        ([assistant("", [])], r"messages\[0\]\.tool_calls\[0\]: expected object, found array"),
    ],
)
def test_what_is_no_conversation_is_refused(messages: list[Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read_turns(messages)


XML = (
    "Look.\n\n<function=str_replace_editor>\n<parameter=path>\n/a\n\n</parameter>\n"
    "<parameter=view_range>[1, 2]</parameter>\n</function>"
)


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        (XML, "Look.", Action((ToolCall("str_replace_editor", {"path": "/a\n", "view_range": [1, 2]}),))),
        ("<function=submit>\n</function>", "", Action((ToolCall("submit", {}),))),
        (
            "<function=a>\n</function><function=b>\n<parameter=insert_line>x</parameter></function> bye",
            "",
            Action((ToolCall("a", {}), ToolCall("b", {"insert_line": "x"}))),
        ),
        ("Done.", "Done.", Action(error="the function call is not there")),
        ("<function=a>\n<parameter=b>c", "<function=a>\n<parameter=b>c", Action(error="the function call is not closed")),
        ("<function=a>\nls</function>", "<function=a>\nls</function>", Action(error="text beside the parameters of a")),
    ],
)
def test_xml_calls(text: str, thought: str, action: Action) -> None:
    said = parse_xml(text)
    assert (said.thought, said.action) == (thought, action)


def test_the_tools_say_of_which_type_a_parameter_is() -> None:
    text = "<function=f><parameter=n>7</parameter><parameter=s>7</parameter><parameter=b>True</parameter></function>"
    types = {("f", "n"): "integer", ("f", "s"): "string", ("f", "b"): "boolean"}
    assert parse_xml(text, types).action == Action((ToolCall("f", {"n": 7, "s": "7", "b": True}),))
    assert parse_xml(text).action == Action((ToolCall("f", {"n": "7", "s": "7", "b": "True"}),))


@pytest.mark.parametrize(
    ("text", "thought", "action"),
    [
        ("Look.\n\n```\nls -a\n```", "Look.", Action((ToolCall("bash", {"command": "ls -a"}),))),
        ("```python\nx\n```\nNow:\n```\nsubmit\n```\n", "```python\nx\n```\nNow:", Action((ToolCall("submit", {}),))),
        ("```\nedit 1:2\na\nend_of_edit\n```", "", Action((ToolCall("bash", {"command": "edit 1:2\na\nend_of_edit"}),))),
        ("No.", "No.", Action(error="no command between ``` marks")),
        ("```\n\n```", "", Action(error="an empty command")),
    ],
)
def test_fenced_commands(text: str, thought: str, action: Action) -> None:
    said = parse_fenced(text)
    assert (said.thought, said.action) == (thought, action)


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": draw(TEXT)}, {"role": "user", "content": draw(TEXT)}]
    for number in range(draw(st.integers(1, 4))):
        calls = []
        for place in range(draw(st.integers(1, 3))):
            arguments = draw(st.dictionaries(TEXT, JSON, max_size=3))
            written = json.dumps(arguments, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
            calls.append(call(draw(TEXT.filter(bool)), written if draw(st.integers(0, 5)) else "{", f"c{number}-{place}"))
        messages.append(assistant(draw(TEXT), *calls))
        messages += draw(st.permutations([tool(draw(TEXT), item["id"]) for item in calls]))
    return messages


@given(conversations())
def test_conversations_come_back_as_they_were(messages: list[dict[str, Any]]) -> None:
    assert to_messages(read_turns(messages)) == messages


@given(st.lists(TEXT, max_size=4))
def test_joined_thoughts_hold_each_text_once(texts: list[str]) -> None:
    assert join_thoughts(*texts, *texts) == join_thoughts(*texts)


def test_answers_in_text_are_read_by_the_dialect() -> None:
    dialect = Dialect(lambda text, _: parse_xml(text), lambda text: Observation(text, text[3:]))
    messages = [
        ASK,
        assistant(XML),
        {"role": "user", "content": "OB:x"},
        assistant("What?"),
        {"role": "user", "content": "OB:y"},
    ]
    turns = read_turns(messages, dialect)
    assert [turn.observation and turn.observation.output for turn in turns] == [None, "x", "y"]
    assert [turn.is_step for turn in turns] == [False, True, False]
    assert to_messages(turns) == messages
