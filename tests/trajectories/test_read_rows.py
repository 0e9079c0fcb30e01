"""Rows of published data sets: which reader takes them, and the run that comes out. Written to their documented columns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_messages import ASK, assistant, call, read, tool

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.chat import to_messages
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers import find_reader

RESULT = "<returncode>0</returncode>\n<output>\na.py\n</output>"
VIEW = "See.\n\n<function=str_replace_editor>\n<parameter=command>view</parameter>\n<parameter=path>/a</parameter>\n</function>"
VIEWED = Action((ToolCall("str_replace_editor", {"command": "view", "path": "/a"}),))
SMITH = {"instance_id": "lib-7", "traj_id": "t1", "model": "expert", "resolved": True, "patch": "diff"}


def actions(trajectory: Trajectory) -> list[Action | None]:
    return [turn.action for turn in trajectory.turns if turn.role == "agent"]


@pytest.mark.parametrize("encode", [json.dumps, lambda messages: messages])
@pytest.mark.parametrize(
    ("answer", "seen", "action"),
    [
        (
            assistant("See.", call("bash", {"command": "ls"})),
            tool("OBSERVATION:\na.py"),
            ToolCall("bash", {"command": "ls"}, "c1"),
        ),
        (assistant(VIEW), {"role": "user", "content": "OBSERVATION:\na.py"}, VIEWED.call),
        (
            assistant("See.\n```\nls\n```"),
            {"role": "user", "content": "OBSERVATION:\na.py"},
            ToolCall("bash", {"command": "ls"}),
        ),
    ],
)
def test_swe_smith_in_its_three_splits(encode: Any, answer: dict[str, Any], seen: dict[str, Any], action: ToolCall) -> None:
    messages = [{"role": "system", "content": "s"}, ASK, answer, seen]
    run = read({"messages": encode(messages), **SMITH}, "swe-smith")
    assert (run.id, run.task_id, run.model, run.resolved, run.submission) == ("t1", "lib-7", "expert", True, "diff")
    assert actions(run) == [Action((action,))]
    assert run.turns[-1].observation == Observation("OBSERVATION:\na.py", "a.py")
    assert run.scaffold == "swe-agent"
    assert to_messages(run.turns) == messages


def test_swe_smith_with_a_review_names_the_scaffold_that_asks_for_one() -> None:
    review = {"role": "user", "content": "OBSERVATION:\nThank you for your work on this issue. Please…"}
    submit = assistant("<function=submit>\n</function>")
    assert read({"messages": [ASK, submit, review, submit], "instance_id": "i"}, "swe-smith").scaffold == "swe-agent-review"


def test_swe_smith_messages_that_are_no_json_are_refused() -> None:
    with pytest.raises(DocumentError, match="messages: not JSON: Expecting"):
        read({"messages": "[", "instance_id": "i"}, "swe-smith")
    with pytest.raises(DocumentError, match="messages: empty"):
        read({"messages": "[]", "instance_id": "i"}, "swe-smith")


def test_swe_gym_rows() -> None:
    parts = [{"type": "text", "text": "Fix it.", "cache_control": None}]
    seen = "a.py\n[Command finished with exit code 1]"
    answer = assistant("See.", call("execute_bash", {"command": "ls"}))
    row = {
        "instance_id": "lib-7",
        "run_id": "r1",
        "resolved": False,
        "messages": [{"role": "user", "content": parts, "tool_calls": None}, answer, tool(seen, name="execute_bash")],
        "tools": [],
        "test_result": {"git_patch": "diff"},
    }
    run = read(row, "swe-gym-openhands")
    assert (run.id, run.task_id, run.scaffold, run.resolved, run.submission) == (
        "lib-7--r1",
        "lib-7",
        "openhands",
        False,
        "diff",
    )
    assert run.turns == (
        Turn("user", "Fix it."),
        Turn(
            "agent",
            "See.",
            "See.",
            Action((ToolCall("execute_bash", {"command": "ls"}, "c1"),)),
            Observation(seen, returncode=1, extra={"name": "execute_bash"}),
        ),
    )
    assert run.extra == {"run_id": "r1", "tools": [], "test_result": {"git_patch": "diff"}}


def test_nebius_openhands_rows() -> None:
    nulls = {"name": None, "tool_call_id": None}
    row = {
        "trajectory_id": "chatcmpl-1",
        "instance_id": "lib-7",
        "repo": "o/lib",
        "trajectory": [
            {**ASK, "tool_calls": None, **nulls},
            {**assistant("", call("think", {"thought": "Hm."})), **nulls},
            tool("ok"),
        ],
        "tools": [{"type": "function", "function": {"name": "think"}}],
        "model_patch": "diff",
        "exit_status": "submit",
        "resolved": 1,
        "gen_tests_correct": None,
    }
    run = read(row, "nebius-openhands")
    assert (run.id, run.resolved, run.exit_status, run.submission) == ("chatcmpl-1", True, "submit", "diff")
    assert actions(run) == [Action((ToolCall("think", {"thought": "Hm."}, "c1"),))]
    assert run.extra == {"repo": "o/lib", "tools": row["tools"], "gen_tests_correct": None}


def test_nebius_swe_agent_rows() -> None:
    def item(role: str, text: str | None, mask: bool = False, **fields: Any) -> dict[str, Any]:
        return {"role": role, "text": text, "mask": mask, "system_prompt": None, "cutoff_date": None, **fields}

    row = {
        "instance_id": "lib-7",
        "model_name": "swe-agent-llama-70b",
        "target": True,
        "trajectory": [
            item("system", None, system_prompt="Be good.", cutoff_date="01.01.2023"),
            item("user", "Fix it."),
            item("ai", "A demonstration.\n```\nls\n```"),
            item("user", "a.py"),
            item("ai", "See.\n```\nopen a.py 3\n```", mask=True),
            item("user", "[File: a.py]"),
            item("ai", "Done.", mask=True),
        ],
        "exit_status": "submitted",
        "generated_patch": "diff",
        "eval_logs": "ok",
    }
    run = read(row, "nebius-swe-agent")
    assert [(turn.role, turn.text, turn.context_only) for turn in run.turns] == [
        ("system", "Be good.", False),
        ("user", "Fix it.", False),
        ("agent", "A demonstration.\n```\nls\n```", True),
        ("agent", "See.\n```\nopen a.py 3\n```", False),
        ("agent", "Done.", False),
    ]
    assert [step.action.call.arguments for step in run.steps()] == [{"command": "open a.py 3"}]
    assert run.turns[3].observation == Observation("[File: a.py]", extra={"mask": False})
    assert run.turns[4].action == Action(error="no command between ``` marks")
    assert run.turns[0].extra == {"mask": False, "cutoff_date": "01.01.2023"}
    assert (run.model, run.resolved, run.submission, run.extra) == ("swe-agent-llama-70b", True, "diff", {"eval_logs": "ok"})


def test_r2e_gym_runs() -> None:
    step = {"step_idx": 0, "thought": "See.", "action": VIEW.split("\n\n")[1], "observation": "a", "done": False, "info": {}}
    document = {
        "trajectory_steps": [step, {**step, "step_idx": 1, "action": ""}],
        "problem_statement": "Fix it.",
        "docker_image": "namanjain12/lib:abc",
        "agent_args": {"llm_name": "expert"},
        "reward": 1.0,
        "exit_reason": "agent",
        "output_patch": "diff",
        "max_steps": 40,
    }
    run = read(document, "r2e-gym")
    assert run.turns[:2] == (
        Turn("user", "Fix it."),
        Turn(
            "agent",
            VIEW.replace("\n\n", "\n"),
            "See.",
            VIEWED,
            Observation("a"),
            extra={"step_idx": 0, "done": False, "info": {}},
        ),
    )
    assert run.turns[2].action == Action(error="the function call is not there")
    assert (run.task_id, run.scaffold, run.model, run.resolved) == ("namanjain12/lib:abc", "r2e-gym", "expert", True)
    assert run.extra == {"docker_image": "namanjain12/lib:abc", "agent_args": {"llm_name": "expert"}, "max_steps": 40}


def test_openai_chat_rows_and_bare_arrays() -> None:
    messages = [ASK, assistant("See.", call("bash", {"command": "ls"})), tool("a.py"), assistant("Done.")]
    run = read({"messages": messages, "tools": [], "id": "x", "model": "m"}, "openai-chat")
    assert (run.id, run.task_id, run.scaffold, run.model) == ("x", "file", "unknown", "m")
    assert [turn.is_step for turn in run.turns] == [False, True, False]
    assert run.turns == read(messages, "openai-chat").turns
    with pytest.raises(DocumentError, match="messages: none of role assistant"):
        read([ASK], "openai-chat")


def test_mini_swe_agent_2_text_answers_and_format_errors() -> None:
    document = {
        "trajectory_format": "mini-swe-agent-1.1",
        "info": {"mini_version": "2.1", "exit_status": "LimitsExceeded", "config": {"model": {"model_name": "m"}}},
        "messages": [
            ASK,
            assistant("See.\n```mswea_bash_command\nls\n```", extra={"actions": [{"command": "ls"}]}),
            {"role": "user", "content": RESULT, "extra": {"raw_output": "a.py\n", "returncode": 0}},
            assistant("I am lost.", extra={"actions": []}),
            {"role": "user", "content": "Tool call error:\n\n<error>none</error>"},
            {"role": "exit", "content": "", "extra": {"exit_status": "LimitsExceeded"}},
        ],
    }  # fmt: skip
    run = read(document, "mini-swe-agent-2")
    assert actions(run) == [Action((ToolCall("bash", {"command": "ls"}),)), Action(error="found 0 tool calls")]
    first = run.turns[1]
    assert first.thought == "See."
    assert first.observation is not None
    assert (first.observation.output, first.observation.returncode) == ("a.py\n", 0)
    assert run.turns[-1] == Turn("user", "", extra={"role": "exit", "extra": {"exit_status": "LimitsExceeded"}})


def test_adp_rows() -> None:
    content = [
        {"class_": "text_observation", "content": "Fix it.", "name": None, "source": "user"},
        {"class_": "code_action", "language": "bash", "content": "ls", "description": "See."},
        {"class_": "text_observation", "content": "a.py", "name": None, "source": "environment"},
        {"class_": "api_action", "function": "edit", "kwargs": {"path": "/a"}, "description": None},
        {"class_": "code_action", "language": "python", "content": "1", "description": "Count."},
        {"class_": "text_observation", "content": "ok", "source": "environment"},
        {"class_": "message_action", "content": "Done.", "description": None},
    ]
    run = read({"id": "a1", "content": content, "details": {"instance_id": "lib-7", "resolved": "true"}}, "adp")
    assert run.turns == (
        Turn("user", "Fix it."),
        Turn("agent", "", "See.", Action((ToolCall("bash", {"command": "ls"}),)), Observation("a.py")),
        Turn(
            "agent",
            "",
            "Count.",
            Action((ToolCall("edit", {"path": "/a"}), ToolCall("python", {"code": "1"}))),
            Observation("ok"),
            extra={"items": [{"class_": "api_action"}, {"class_": "code_action", "description": "Count."}]},
        ),
        Turn("agent", "Done.", "Done."),
    )
    assert (run.id, run.task_id, run.resolved) == ("a1", "lib-7", True)
    with pytest.raises(DocumentError, match=r"content\[1\]\.class_: expected one of ADP's actions and observations, found 'x'"):
        read({"id": "a", "content": [content[0], {"class_": "x"}]}, "adp")


def test_responses_items() -> None:
    items = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "…"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "See.", "annotations": []}]},
        {"type": "function_call", "name": "bash", "arguments": '{"command": "ls"}', "call_id": "c1", "id": "f1"},
        {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
        {"type": "function_call", "name": "bash", "arguments": "{", "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c2", "output": "bad"},
    ]
    run = read({"input": [{"role": "user", "content": "Fix it."}, *items]}, "openai-responses")
    assert run.turns == (
        Turn("user", "Fix it."),
        Turn("agent", "See.", "Hm.\n\nSee.", Action((ToolCall("bash", {"command": "ls"}, "c1"),)), Observation("a.py"),
             extra={"tool_calls_rest": [{"item_id": "f1"}], "items": [items[0]]}),
        Turn("agent", "", "", Action(error="the arguments of bash are not a JSON object"),
             Observation("bad", extra={"call_id": "c2"}), extra={"tool_calls": [items[4]]}),
    )  # fmt: skip
    with pytest.raises(DocumentError, match=r"responses_create_params\.input\[0\]: an output where nothing was called"):
        read({"input": [items[3]]}, "openai-responses")


def test_pivot_rows_are_one_step_after_copied_context() -> None:
    context = [
        {"role": "user", "content": "Fix it."},
        {"type": "function_call", "name": "bash", "arguments": '{"command": "ls"}', "call_id": "c1"},
        {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
    ]
    expected = {"type": "function_call", "name": "edit", "arguments": '{"path": "/a"}'}
    row = {
        "uuid": "u1",
        "agent_ref": {"name": "pivot"},
        "responses_create_params": {"input": context, "tools": [{"name": "edit"}]},
        "expected_action": expected,
        "metadata": {"instance_id": "lib-7"},
    }
    run = read(row, "nemo-gym-pivot")
    assert [(turn.role, turn.context_only) for turn in run.turns] == [("user", False), ("agent", True), ("agent", False)]
    assert [step.action for step in run.steps()] == [Action((ToolCall("edit", {"path": "/a"}),))]
    assert (run.id, run.task_id, run.scaffold) == ("u1", "lib-7", "pivot")
    assert run.extra["responses_create_params"] == {"tools": [{"name": "edit"}]}


def v0(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "timestamp": "t", "source": "agent", **fields}


def metadata(call_id: str, *calls: dict[str, Any], content: str = "See.") -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    response = {"id": f"r-{calls[0]['id']}", "choices": [{"message": message}]}
    return {"function_name": "x", "tool_call_id": call_id, "model_response": response, "total_calls_in_response": len(calls)}


def test_openhands_v0_events_of_one_response_are_one_turn() -> None:
    calls = [call("execute_bash", {"command": "ls"}, "c1"), call("think", {"thought": "Hm."}, "c2")]
    run_meta = {"exit_code": 2, "working_dir": "/w", "prefix": "", "suffix": "", "py_interpreter_path": None}
    history = [
        v0(0, source="user", message="Fix it.", action="message", args={"content": "Fix it.", "image_urls": None}),
        v0(1, source="environment", observation="agent_state_changed", content="", extras={}),
        v0(2, action="run", args={"command": "ls", "thought": "See."}, tool_call_metadata=metadata("c1", *calls)),
        v0(3, action="think", args={"thought": "See.\nHm."}, tool_call_metadata=metadata("c2", *calls)),
        v0(
            4,
            observation="run",
            cause=2,
            content="a.py",
            extras={"metadata": run_meta},
            tool_call_metadata=metadata("c1", *calls),
        ),
        v0(5, observation="think", cause=3, content="Logged.", extras={}, tool_call_metadata=metadata("c2", *calls)),
        v0(6, action="run", args={"command": "pwd", "thought": "Where?", "hidden": False}),
        v0(7, observation="run", cause=6, content="/w", extras={}),
    ]
    document = {"instance_id": "lib-7", "history": history, "metadata": {"llm_config": {"model": "m"}},
                "test_result": {"git_patch": "diff"}, "report": {"resolved": True}, "error": None}  # fmt: skip
    run = read(document, "openhands")
    assert (run.task_id, run.scaffold, run.model, run.resolved, run.submission) == ("lib-7", "openhands", "m", True, "diff")
    assert actions(run) == [
        Action((ToolCall("execute_bash", {"command": "ls"}, "c1"), ToolCall("think", {"thought": "Hm."}, "c2"))),
        Action((ToolCall("execute_bash", {"command": "pwd"}),)),
    ]
    first, second = run.turns[1:]
    assert (first.thought, second.thought) == ("See.", "Where?")
    assert first.observation is not None
    shown = "a.py\n[Current working directory: /w]\n[Command finished with exit code 2]"
    assert to_messages([first])[1:] == [
        {"role": "tool", "content": shown, "tool_call_id": "c1"},
        {"role": "tool", "content": "Logged.", "tool_call_id": "c2"},
    ]
    assert second.observation is not None
    assert (second.observation.text, second.observation.output) == ("/w", "/w")
    assert "model_response" not in first.extra["events"][1]["tool_call_metadata"]
    assert run.extra["events"] == [{"before_turn": 1, "event": history[1]}]
    assert read(history, "openhands").turns == run.turns
    pairs = [history[:2], history[2:3], history[3:5], history[5:]]
    assert read({"instance_id": "lib-7", "history": pairs}, "openhands").turns == run.turns


def test_openhands_v1_events() -> None:
    def v1(kind: str, **fields: Any) -> dict[str, Any]:
        return {"kind": kind, "id": f"e-{kind}-{len(fields)}", "timestamp": "t", **fields}

    said = {"thought": [{"type": "text", "text": "See."}], "reasoning_content": "Hm.", "thinking_blocks": [], "source": "agent"}
    one = {"tool_name": "terminal", "tool_call_id": "c1", "llm_response_id": "r1"}
    history = [
        v1("SystemPromptEvent", source="agent", system_prompt={"type": "text", "text": "Be good."}, tools=[]),
        v1("MessageEvent", source="user", llm_message={"role": "user", "content": [{"type": "text", "text": "Fix it."}]}),
        v1("ActionEvent", **said, **one, action={"kind": "TerminalAction", "command": "ls"},
           tool_call={"id": "c1", "name": "terminal", "arguments": '{"command": "ls"}', "origin": "completion"}),
        v1("ObservationEvent", source="environment", tool_name="terminal", tool_call_id="c1", action_id="?",
           observation={"kind": "TerminalObservation", "content": [{"type": "text", "text": "a.py"}], "exit_code": 0,
                        "metadata": {"exit_code": 0, "working_dir": "/w"}}),
        v1("ActionEvent", **{**said, "thought": []}, tool_name="edit", tool_call_id="c2", llm_response_id="r2", action=None,
           tool_call={"id": "c2", "name": "edit", "arguments": "{}", "origin": "completion"}),
        v1("AgentErrorEvent", source="agent", tool_name="edit", tool_call_id="c2", error="no path"),
        v1("ConversationStateUpdateEvent", source="environment", key="status", value="finished"),
    ]  # fmt: skip
    run = read({"instance_id": "lib-7", "history": history}, "openhands")
    assert [(turn.role, turn.text, turn.thought) for turn in run.turns] == [
        ("system", "Be good.", ""), ("user", "Fix it.", ""), ("agent", "See.", "Hm.\n\nSee."), ("agent", "", "Hm."),
    ]  # fmt: skip
    assert actions(run) == [
        Action((ToolCall("terminal", {"command": "ls"}, "c1"),)),
        Action(error="the arguments of edit were refused"),
    ]
    seen = [turn.observation for turn in run.turns if turn.observation]
    assert [(item.text, item.output, item.returncode) for item in seen] == [
        ("a.py\n[Current working directory: /w]\n[Command finished with exit code 0]", "a.py", 0), ("no path", None, None),
    ]  # fmt: skip
    assert run.extra["events"] == [{"before_turn": 4, "event": history[6]}]


def test_every_row_is_taken_by_exactly_the_reader_meant_for_it() -> None:
    rows = {
        "swe-smith": {"messages": [ASK], "instance_id": "i"},
        "swe-gym-openhands": {"messages": [ASK], "instance_id": "i", "run_id": "r"},
        "nebius-openhands": {"trajectory": [ASK], "instance_id": "i"},
        "nebius-swe-agent": {"trajectory": [{"role": "user", "text": "x"}]},
        "openai-chat": {"messages": [ASK]},
        "openai-responses": {"responses_create_params": {"input": []}, "response": {"output": []}},
        "nemo-gym-pivot": {"responses_create_params": {"input": []}, "expected_action": {}},
    }
    for name, row in rows.items():
        found = find_reader(row)
        assert found is not None
        assert found.name == name
        with pytest.raises(DocumentError):
            found.read(dict.fromkeys(row, 7), Origin("x"))
