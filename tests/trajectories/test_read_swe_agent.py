"""SWE-agent runs with tool calls: the history's turns, with what the trajectory knows about them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers import find_reader
from swe_srl.trajectories.readers.swe_agent import SweAgentReader

READER = SweAgentReader()


def said(
    thought: str, action: str, arguments: object, call_id: str = "c1", name: str = "bash", **fields: Any
) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": thought, "thought": thought, "action": action, "tool_calls": [call], **fields}


def seen(text: object, call_id: str = "c1", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_ids": [call_id], **fields}


def read(document: dict[str, Any]) -> Trajectory:
    assert find_reader(document) is not None
    return READER.read(document, Origin("file"))


CONFIG = {
    "agent": {
        "model": {"name": "expert"},
        "tools": {
            "env_variables": {"WINDOW": 100, "PAGER": "cat"},
            "execution_timeout": 30,
            "parse_function": {"type": "function_calling"},
        },
    },
    "problem_statement": {"id": "lib__lib-7"},
}


def test_known_run() -> None:
    history = [
        {"role": "system", "content": "Be good.", "agent": "main"},
        {"role": "user", "content": [{"type": "text", "text": "Fix "}, {"type": "text", "text": "it."}]},
        said("Look.", "ls", '{"command": "ls"}', agent="main"),
        seen([{"type": "text", "text": "OBSERVATION:\na.py\r\n"}], cache_control={"type": "ephemeral"}),
        said("Done.", "submit", "{}", "c2", "submit"),
        seen("Review, please.", "c2"),
    ]
    steps = [
        {
            "action": "ls",
            "observation": "a.py\r\n",
            "response": "Look.",
            "thought": "Look.",
            "state": {"working_dir": "/testbed"},
            "execution_time": 0.5,
            "messages": history[:2],
        },
        {"action": "submit", "observation": "Review, please.", "response": "Other.", "thought": "Other.", "query": []},
    ]
    document = {
        "history": history,
        "trajectory": steps,
        "info": {"exit_status": "submitted", "submission": "diff", "model_stats": {"api_calls": 2}},
        "replay_config": json.dumps(CONFIG),
        "environment": "main",
    }
    assert read(document) == Trajectory(
        id="file",
        task_id="lib__lib-7",
        scaffold="swe-agent",
        format="swe-agent",
        turns=(
            Turn("system", "Be good.", extra={"agent": "main"}),
            Turn("user", "Fix it."),
            Turn(
                "agent",
                "Look.",
                "Look.",
                Action((ToolCall("bash", {"command": "ls"}, "c1"),)),
                Observation("OBSERVATION:\na.py\r\n", "a.py\r\n", extra={"cache_control": {"type": "ephemeral"}}),
                extra={"action": "ls", "agent": "main", "state": {"working_dir": "/testbed"}, "execution_time": 0.5},
            ),
            Turn(
                "agent",
                "Done.",
                "Done.",
                Action((ToolCall("submit", {}, "c2"),)),
                Observation("Review, please.", "Review, please."),
                extra={"action": "submit", "response": "Other."},
            ),
        ),
        model="expert",
        exit_status="submitted",
        submission="diff",
        environment={"WINDOW": "100", "PAGER": "cat"},
        timeout_seconds=30.0,
        extra={"info": {"model_stats": {"api_calls": 2}}, "replay_config": json.dumps(CONFIG), "environment": "main"},
    )


def test_submit_tool_of_the_run_tells_its_scaffold() -> None:
    def scaffold(path: str) -> str:
        config = {"agent": {"tools": {"bundles": [{"path": "tools/registry"}, {"path": path}]}}}
        return read({"history": [said("a", "ls", {})], "replay_config": config}).scaffold

    assert scaffold("/home/me/tools/review_on_submit_m") == "swe-agent-review"
    assert scaffold("tools/submit") == "swe-agent"


def test_history_alone_tells_output_only_where_its_text_does() -> None:
    trajectory = read(
        {
            "history": [
                said("a", "ls", {"command": "ls"}),
                seen("OBSERVATION:\nx"),
                said("b", "true", {"command": "true"}),
                seen("Your command ran successfully and did not produce any output."),
                said("c", "ls", {"command": "ls"}),
                seen("x\n(Open file: n/a)\nbash-$"),
            ]
        }
    )
    assert [turn.observation and turn.observation.output for turn in trajectory.turns] == ["x", "", None]
    assert (trajectory.id, trajectory.task_id) == ("file", "file")


def test_demonstrations_are_context_and_take_no_part_in_the_alignment() -> None:
    trajectory = read(
        {
            "history": [
                {"role": "user", "content": "Watch:", "is_demo": True},
                said("demo", "ls", '{"command": "ls"}', is_demo=True),
                seen("demo.py", is_demo=True),
                {"role": "user", "content": "Fix it."},
                said("mine", "ls", '{"command": "ls"}'),
                seen("mine.py"),
            ],
            "trajectory": [{"action": "ls", "observation": "mine.py\r\n", "response": "mine", "state": 1}],
        }
    )
    assert [turn.context_only for turn in trajectory.turns] == [True, True, False, False]
    assert [step.turn.text for step in trajectory.steps()] == ["mine"]
    assert trajectory.problem == "Fix it."
    demo, mine = trajectory.turns[1], trajectory.turns[3]
    assert (demo.observation, demo.extra) == (Observation("demo.py"), {"action": "ls"})
    assert (mine.observation, mine.extra["state"]) == (Observation("mine.py", "mine.py\r\n"), 1)


def test_repeated_commands_are_aligned_in_order_and_strangers_kept_apart() -> None:
    history = [
        said("1", "ls", {}, "c1"), seen("one", "c1"),
        said("2", "ls", {}, "c2"), seen("two", "c2"),
    ]  # fmt: skip
    steps = [
        {"action": "ls", "observation": "raw one"},
        {"action": "exit_cost", "observation": "Exited", "messages": [1]},
        {"action": "ls", "observation": "raw two"},
    ]
    trajectory = read({"history": history, "trajectory": steps})
    assert [turn.observation and turn.observation.output for turn in trajectory.turns] == ["raw one", "raw two"]
    assert trajectory.extra["unaligned_steps"] == [{"action": "exit_cost", "observation": "Exited"}]


def test_submission_that_the_history_lacks_is_a_step() -> None:
    trajectory = read(
        {
            "history": [said("1", "ls", {}), seen("x")],
            "trajectory": [
                {"action": "ls", "observation": "x"},
                {"action": "submit", "observation": "diff", "response": "Done.", "thought": "Done.", "execution_time": 1},
            ],
        }
    )
    assert trajectory.turns[-1] == Turn(
        "agent",
        "Done.",
        "Done.",
        Action((ToolCall("submit", {}),)),
        Observation("diff", "diff"),
        extra={"execution_time": 1},
    )


def test_answers_that_are_not_one_good_call_are_no_steps() -> None:
    two = said("two", "", {})
    two["tool_calls"] *= 2
    trajectory = read(
        {
            "history": [
                {"role": "assistant", "content": "none"},
                {"role": "user", "content": "One call, please."},
                two,
                {"role": "user", "content": "One call, please."},
                said("broken", "", '{"command": '),
                {"role": "user", "content": "One call, please."},
                said("good", "ls", {"command": "ls"}),
            ]
        }
    )
    assert [turn.action and turn.action.error for turn in trajectory.turns] == [
        "found 0 tool calls",
        "found 2 tool calls",
        "the arguments of bash are not a JSON object",
        None,
    ]
    assert [turn.observation and turn.observation.text for turn in trajectory.turns] == ["One call, please."] * 3 + [None]
    assert len(trajectory.turns[1].extra["tool_calls"]) == 2


def test_thinking_comes_before_the_thought_and_stays_in_extra() -> None:
    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]
    turn = read({"history": [said("Look.", "ls", {}, thinking_blocks=blocks)]}).turns[0]
    assert (turn.thought, turn.extra["thinking_blocks"]) == ("Hm.\n\nLook.", blocks)


def test_several_messages_for_one_call_are_joined() -> None:
    turn = read({"history": [said("a", "ls", {}), seen("one"), seen("two")]}).turns[0]
    assert turn.observation == Observation("one\ntwo")


def test_run_configured_for_tool_calls_is_one_before_its_first_call() -> None:
    document = {"history": [{"role": "user", "content": "Fix it."}], "replay_config": CONFIG}
    assert READER.detect(document)
    assert not READER.detect({**document, "replay_config": "{"})
    assert not READER.detect({"history": document["history"]})


@pytest.mark.parametrize(
    ("history", "reason"),
    [
        ([seen("x"), said("a", "ls", {})], r"history\[0\]: a message of role 'tool' where none can stand"),
        ([said("a", "ls", {}), 1], r"history\[1\]: expected object, found number"),
        ([{**said("a", "ls", {}), "tool_calls": [{}]}], r"history\[0\].tool_calls\[0\].function: expected object, found null"),
    ],
)
def test_bad_documents_name_the_place(history: list[Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read({"history": history})


def wrote(text: str, action: str, **fields: Any) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": text,
        "thought": text.split("\n")[0],
        "action": action,
        "agent": "primary",
        **fields,
    }


FOOTER = "\n(Open file: n/a)\n(Current directory: /lib)\nbash-$"


def step(action: str, observation: str, state: object = '{"open_file": "n/a", "working_dir": "/lib"}\n') -> dict[str, Any]:
    return {"action": action, "observation": observation, "response": "", "thought": "", "state": state}


def test_a_run_of_version_0() -> None:
    history = [
        {"role": "system", "content": "Be good."},
        {"role": "user", "content": "An example.", "is_demo": "True"},
        {"role": "user", "content": "Fix it."},
        wrote("Look.\n```\nopen a.py 3\n```", "open a.py 3\n"),
        {"role": "user", "content": f"[File: /lib/a.py (1 lines total)]\n1:x\n{FOOTER}"},
        wrote("Done.\n```\nsubmit\n```", "submit\n"),
    ]
    steps = [step("open a.py 3\n", "[File: /lib/a.py (1 lines total)]\n1:x\n"), step("submit\n", "\ndiff\n")]
    run = READER.read({"history": history, "trajectory": steps, "info": {}}, Origin("x__ins__lib__lib-7"))
    assert (run.task_id, run.scaffold, run.workdir) == ("lib__lib-7", "swe-agent-windowed-0", "/lib")
    assert [(turn.role, turn.context_only) for turn in run.turns] == [
        ("system", False), ("user", True), ("user", False), ("agent", False), ("agent", False),
    ]  # fmt: skip
    assert run.problem == "Fix it."
    first, last = run.steps()
    assert first.action == Action((ToolCall("open", {"path": "a.py", "line_number": 3}),))
    assert first.turn.thought == "Look."
    assert first.turn.observation == Observation(str(history[4]["content"]), "[File: /lib/a.py (1 lines total)]\n1:x\n")
    assert first.turn.extra["action"] == "open a.py 3\n"
    assert last.action == Action((ToolCall("submit", {}),))
    assert last.turn.observation == Observation("\ndiff\n", "\ndiff\n")


@pytest.mark.parametrize(
    ("item", "action"),
    [
        (wrote("Hm.\n<command>\nls -F\n</command>", "ls -F"), Action((ToolCall("bash", {"command": "ls -F"}),))),
        (
            {"role": "assistant", "content": "Hm.\n```\nls\n```\nthen\n```bash\nls -F\n```"},
            Action((ToolCall("bash", {"command": "ls -F"}),)),
        ),
        ({"role": "assistant", "content": "<command>ls</command>"}, Action((ToolCall("bash", {"command": "ls"}),))),
        (
            wrote(
                "Hm.\n<function=str_replace_editor>\n<parameter=command>view</parameter>\n"
                "<parameter=path>\n/a\n</parameter>\n</function>",
                "str_replace_editor view /a",
            ),
            Action((ToolCall("str_replace_editor", {"command": "view", "path": "/a"}),)),
        ),
        ({"role": "assistant", "content": "I give up."}, Action(error="found no command")),
        (wrote("Hm.", " \n"), Action(error="the command is empty")),
    ],
)
def test_answers_in_text(item: dict[str, Any], action: Action) -> None:
    run = read({"history": [item, {"role": "user", "content": "seen"}], "replay_config": CONFIG})
    assert [turn.action for turn in run.turns] == [action]
    assert run.turns[0].observation == Observation("seen")
    assert run.turns[0].text == item["content"]


def tools(*bundles: str) -> dict[str, Any]:
    return {"replay_config": {"agent": {"tools": {"bundles": [{"path": f"tools/{name}"} for name in bundles]}}}}


EARLY = "Text replaced. Please review the changes and make sure they are correct\r\n(correct indentation, no duplicate lines"


@pytest.mark.parametrize(
    ("document", "name"),
    [
        ({"history": [said("a", "ls", {})]}, "swe-agent"),
        ({"history": [said("a", "ls", {})], **tools("review_on_submit_m")}, "swe-agent-review"),
        ({"history": [said("a", "ls", {})], **tools("search", "edit_linting")}, "swe-agent-windowed"),
        ({"history": [said("a", "ls", {})], **tools("windowed", "windowed_edit_replace")}, "swe-agent-windowed-replace"),
        ({"history": [said("a", "open a", {"path": "a"}, name="open")]}, "swe-agent-windowed"),
        ({"history": [said("a", "edit", {"search": "a", "replace": "b"}, name="edit")]}, "swe-agent-windowed-replace"),
        (
            {"history": [said("a", "edit", {"search": "a", "replace": "b"}, name="edit"), seen(EARLY)]},
            "swe-agent-windowed-replace-2024",
        ),
        ({"history": [wrote("a", "set_cursors 1 2\n")], "trajectory": [step("set_cursors 1 2\n", "")]}, "swe-agent-cursors"),
    ],
)
def test_the_interface_a_run_was_recorded_with(document: dict[str, Any], name: str) -> None:
    assert read(document).scaffold == name
