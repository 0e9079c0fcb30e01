from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.policy.format import parse_answer, render_action, render_answer
from swe_srl.scaffolds.base import Action, ToolCall


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


TOOLS = [
    tool("bash", ["command"], command={"type": "string"}),
    tool(
        "edit",
        ["command", "path"],
        command={"type": "string", "enum": ["view", "insert"]},
        path={"type": "string"},
        line={"type": "integer"},
        view_range={"type": "array", "items": {"type": "integer"}},
        note={"type": ["string", "null"]},
        count={"anyOf": [{"type": "integer"}, {"type": "null"}]},
        options={"type": "object"},
        scale={"type": "number"},
        force={"type": "boolean"},
        anything={},
    ),
    tool("submit", []),
]
LS = "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
THINK = "<think>\nLook.\n</think>\n"


def action(name: str, **arguments: Any) -> Action:
    return Action((ToolCall(name, arguments),))


def edit(parameters: str) -> str:
    return f"{THINK}<function=edit>{parameters}</function>"


def test_an_action_is_written_with_verbatim_strings_and_json_for_the_rest() -> None:
    call = action("edit", command="view", path="/a b\n", view_range=[1, -1], force=True, note="é</think>")
    assert render_action(call) == (
        "<function=edit>\n<parameter=command>view</parameter>\n<parameter=path>/a b\n</parameter>\n"
        "<parameter=view_range>[1, -1]</parameter>\n<parameter=force>true</parameter>\n"
        "<parameter=note>é</think></parameter>\n</function>"
    )
    assert render_action(action("submit")) == "<function=submit>\n</function>"


def test_several_calls_are_several_blocks() -> None:
    calls = Action((ToolCall("bash", {"command": "ls"}), ToolCall("submit", {})))
    assert render_action(calls) == LS + "\n<function=submit>\n</function>"


def test_an_answer_is_a_thought_then_the_action() -> None:
    assert render_answer("  Look. \n", action("bash", command="ls")) == THINK + LS


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Action(), "without tool calls"),
        (Action(error="found 2 bash blocks"), "found 2 bash blocks"),
        (action("ba sh"), "'ba sh' cannot be written"),
        (action("bash", **{"a>b": "x"}), "'a>b' cannot be written"),
        (action("bash", command="echo '</parameter>'"), "</parameter>"),
        (action("bash", command=float("nan")), "cannot be written as JSON|not JSON compliant"),
        (action("bash", command={1, 2}), "cannot be written as JSON"),
        (action("bash", command=(1, 2)), "does not survive JSON"),
        (action("bash", command={1: 2}), "does not survive JSON"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(bad: Action, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_action(bad)


@pytest.mark.parametrize("thought", ["", " \n", "a <think> b", "a </think> b"])
def test_a_thought_that_would_not_parse_is_refused(thought: str) -> None:
    with pytest.raises(ValueError, match="thought"):
        render_answer(thought, action("submit"))


def test_a_valid_answer() -> None:
    answer = parse_answer(f"\n {THINK}\n\n{LS} \n", TOOLS)
    assert (answer.thought, answer.action, answer.action_text, answer.error) == (
        "Look.",
        action("bash", command="ls"),
        LS,
        None,
    )


def test_values_are_read_by_the_schema() -> None:
    text = edit(
        "<parameter=command>view</parameter> <parameter=path>1</parameter><parameter=line>7</parameter>"
        "<parameter=view_range>[1, -1]</parameter><parameter=note>null</parameter><parameter=count>null</parameter>"
        '<parameter=options>{"a": "<\\/parameter>"}</parameter><parameter=scale>2</parameter><parameter=force>false</parameter>'
        "<parameter=anything>[1]</parameter>"
    )
    assert parse_answer(text, TOOLS).action == action(
        "edit",
        command="view",
        path="1",
        line=7,
        view_range=[1, -1],
        note="null",
        count=None,
        options={"a": "</parameter>"},
        scale=2,
        force=False,
        anything="[1]",
    )


VIEW = "<parameter=command>view</parameter><parameter=path>/a</parameter>"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "missing think"),
        (LS, "missing think"),
        ("Sure! " + THINK + LS, "missing think"),
        ("<think>\nLook.\n" + LS, "unclosed think"),
        ("<think>\n \n</think>" + LS, "empty think"),
        ("<think>a <think>b</think></think>" + LS, "nested think"),
        ("<think>a</think><think>b</think>" + LS, "repeated think"),
        ("<think>a</think></think>" + LS, "repeated think"),
        (THINK, "no action"),
        (THINK + "I would run ls.", "no action"),
        (THINK + "So: " + LS, "text before the action: " + repr(("So: " + LS)[:40])),
        (THINK + LS + LS, "several actions"),
        (THINK + LS + "\nDone.", "text after the action: 'Done.'"),
        (THINK + LS + "\n<think>b</think>", "text after the action: '<think>b</think>'"),
        (THINK + "<function=bash", "malformed action: unreadable function tag"),
        (THINK + "<function=>\n</function>", "malformed action: unreadable function tag"),
        (THINK + "<function=bash>\n<parameter=command>ls</parameter>\n", "malformed action: unclosed function"),
        (THINK + "<function=bash>\n<parameter=command>ls\n</function>", "malformed action: unclosed parameter 'command'"),
        (THINK + "<function=bash>\nls\n</function>", r"malformed action: text between parameters 'ls\n</function>'"),
        (edit(VIEW + ", " + VIEW), f"malformed action: text between parameters {(', ' + VIEW)[:40]!r}"),
        (edit(VIEW + VIEW), "malformed action: parameter 'command' given twice"),
        (THINK + "<function=cat>\n</function>", "unknown tool: 'cat'"),
        (THINK + "<function=submit><parameter=now>1</parameter></function>", "unknown parameter: 'now' of submit"),
        (THINK + "<function=bash>\n</function>", "missing parameter: 'command' of bash"),
        (edit(VIEW + "<parameter=line>x</parameter>"), "wrong value: 'line' is not integer: 'x'"),
        (edit(VIEW + "<parameter=line>1.5</parameter>"), "wrong value: 'line' does not conform to the tool's schema: '1.5'"),
        (edit(VIEW + "<parameter=line>true</parameter>"), "wrong value: 'line' does not conform to the tool's schema: 'true'"),
        (edit(VIEW + "<parameter=scale>NaN</parameter>"), "wrong value: 'scale' is not number: 'NaN'"),
        (edit(VIEW + "<parameter=count>x</parameter>"), "wrong value: 'count' is not integer or null: 'x'"),
        (
            edit(VIEW + '<parameter=view_range>[1, "a"]</parameter>'),
            "wrong value: 'view_range' does not conform to the tool's schema: '[1, \"a\"]'",
        ),
        (
            edit("<parameter=command>look</parameter><parameter=path>/a</parameter>"),
            "wrong value: 'command' does not conform to the tool's schema: 'look'",
        ),
    ],
)
def test_an_invalid_answer_says_why(text: str, error: str) -> None:
    answer = parse_answer(text, TOOLS)
    assert (answer.error, answer.action) == (error, None)
    assert answer.error_kind == error.split(":")[0]


def test_an_invalid_answer_keeps_its_thought_and_what_follows() -> None:
    answer = parse_answer(THINK + LS + "x", TOOLS)
    assert (answer.thought, answer.action_text) == ("Look.", LS + "x")


@pytest.mark.parametrize("text", [THINK + LS, "<think>\nLoo", THINK + "<function=bash>\n<parameter=comm"])
def test_a_truncated_answer_is_never_valid(text: str) -> None:
    assert parse_answer(text, TOOLS, truncated=True).error == "truncated output"


def test_definitions_without_the_function_wrapper_are_understood() -> None:
    assert parse_answer(THINK + LS, [t["function"] for t in TOOLS]).error is None


TAGS = ["<think>", "</think>", "<function=bash>", "</function>", "<parameter=command>", "\n", "\r\n", " ", "\\", "<", "/", "é"]
strings = st.lists(st.sampled_from(TAGS) | st.text(max_size=5)).map("".join).filter(lambda s: "</parameter>" not in s)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | strings
    | st.just("</parameter>"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
actions = st.one_of(
    st.builds(lambda c: action("bash", command=c), strings),
    st.just(action("submit")),
    st.fixed_dictionaries(
        {"command": st.sampled_from(["view", "insert"]), "path": strings},
        optional={
            "line": st.integers(),
            "view_range": st.lists(st.integers(), max_size=3),
            "note": strings,
            "count": st.none() | st.integers(),
            "options": st.dictionaries(st.text(max_size=3), json_values, max_size=3),
            "scale": st.floats(allow_nan=False, allow_infinity=False) | st.integers(),
            "force": st.booleans(),
            "anything": strings,
        },
    ).map(lambda arguments: action("edit", **arguments)),
)
thoughts = strings.map(str.strip).filter(lambda s: s and "<think>" not in s and "</think>" not in s)


@given(thoughts, actions)
def test_parsing_undoes_rendering(thought: str, act: Action) -> None:
    answer = parse_answer(render_answer(thought, act), TOOLS)
    assert answer.error is None
    assert (answer.thought, answer.action, answer.action_text) == (thought, act, render_action(act))


@given(st.lists(st.sampled_from([*TAGS, "</parameter>", "ls", "<function=", "<parameter="])).map("".join))
def test_parsing_never_raises(text: str) -> None:
    answer = parse_answer(text, TOOLS)
    assert (answer.action is None) == (answer.error is not None)
