"""mini-swe-agent 1 runs: what was executed, what was not, and nothing lost."""

from __future__ import annotations

from typing import Any

import pytest

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers.mini_swe_agent_1 import MiniSweAgent1Reader

READER = MiniSweAgent1Reader()
FORMAT_ERROR = "Please always provide EXACTLY ONE action in triple backticks, found 2 actions."
LS = "THOUGHT: look\n\n```bash\nls\n```"
LS_SEEN = "<returncode>0</returncode>\n<output>\na.py\n</output>"
SUBMIT = "```bash\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff\n```"


def run(*contents: str, exit_status: str | None = "Submitted", **fields: Any) -> dict[str, Any]:
    """A run of which the contents are answers and what came back, in turn."""
    said = [{"role": ("assistant", "user")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {
        "info": {"exit_status": exit_status, "submission": "diff", "mini_version": "1.15.0"},
        "messages": [{"role": "system", "content": "Be good."}, {"role": "user", "content": "Fix it."}, *said],
        "trajectory_format": "mini-swe-agent-1",
        "instance_id": "lib__lib-7",
        **fields,
    }


def read(document: dict[str, Any]) -> Trajectory:
    assert READER.detect(document)
    return READER.read(document, Origin("file"))


def test_known_run() -> None:
    document = run(LS, LS_SEEN, SUBMIT, "diff")
    document["info"]["config"] = {
        "model": {"model_name": "expert"},
        "environment": {"env": {"PAGER": "cat", "WIDTH": 80}, "timeout": 60},
    }
    document["note"] = "kept"
    assert read(document) == Trajectory(
        id="file",
        task_id="lib__lib-7",
        scaffold="mini-swe-agent",
        format="mini-swe-agent-1",
        turns=(
            Turn("system", "Be good."),
            Turn("user", "Fix it."),
            Turn(
                "agent",
                LS,
                "THOUGHT: look",
                Action((ToolCall("bash", {"command": "ls"}),)),
                Observation(LS_SEEN, "a.py\n", 0),
            ),
            Turn(
                "agent",
                SUBMIT,
                "",
                Action((ToolCall("bash", {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git diff"}),)),
                Observation("diff", "diff", extra={"submitted": True}),
            ),
        ),
        model="expert",
        exit_status="Submitted",
        submission="diff",
        environment={"PAGER": "cat", "WIDTH": "80"},
        timeout_seconds=60.0,
        extra={"info": {"mini_version": "1.15.0", "config": document["info"]["config"]}, "note": "kept"},
    )


def test_answer_without_exactly_one_block_stays_in_the_context_only() -> None:
    malformed = f"{LS}\n{LS}\n"
    trajectory = read(run(malformed, FORMAT_ERROR, LS, LS_SEEN, SUBMIT, "diff"))
    assert trajectory.turns[2] == Turn(
        "agent",
        malformed,
        malformed.strip(),
        Action(error="found 2 bash blocks"),
        Observation(FORMAT_ERROR, extra={"format_error": True}),
    )
    assert [step.turn_index for step in trajectory.steps()] == [3, 4]


def test_block_that_was_answered_by_a_format_error_was_never_executed() -> None:
    turn = read(run(LS, FORMAT_ERROR, SUBMIT, "diff")).turns[2]
    assert turn.action == Action(error="never executed: answered by a format error")
    assert turn.thought == LS
    assert turn.observation == Observation(FORMAT_ERROR, extra={"format_error": True})


def test_block_that_was_followed_by_another_answer_was_never_executed() -> None:
    document = run(LS, LS_SEEN)
    document["messages"].insert(2, {"role": "assistant", "content": "```bash\npwd\n```"})
    turns = read(document).turns
    assert turns[2].action == Action(error="never executed: followed by another answer")
    assert turns[2].observation is None
    assert turns[3].action == Action((ToolCall("bash", {"command": "ls"}),))


def test_run_that_was_stopped_keeps_its_last_messages() -> None:
    stopped = run(LS, LS_SEEN, exit_status="LimitsExceeded")
    stopped["messages"].append({"role": "user", "content": ""})
    assert read(stopped).turns[-1] == Turn("user", "")
    assert read(run(LS, LS_SEEN, LS, exit_status="RuntimeError")).turns[-1].observation is None


def test_response_that_repeats_the_answer_is_kept_without_it() -> None:
    def answer(content: str, repeated: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": repeated, "reasoning": "hm"}
        return {"role": "assistant", "content": content, "extra": {"response": {"id": "r1", "choices": [{"message": message}]}}}

    document = run(LS, LS_SEEN)
    document["messages"][2] = answer(LS, LS)
    message = {"role": "assistant", "reasoning": "hm"}
    assert read(document).turns[2].extra == {"extra": {"response": {"id": "r1", "choices": [{"message": message}]}}}
    document["messages"][2] = answer(LS, "something else")
    assert read(document).turns[2].extra == {"extra": answer(LS, "something else")["extra"]}


def test_file_without_a_format_mark_is_known_by_its_version_and_plain_answers() -> None:
    document = run(LS, LS_SEEN)
    del document["trajectory_format"]
    assert READER.detect(document)
    document["messages"][2]["tool_calls"] = [{"id": "c"}]
    assert not READER.detect(document)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (run(messages=[]), "messages: empty"),
        (run(messages=None), "messages: expected array, found null"),
        (
            run(messages=[{"role": "tool", "content": ""}]),
            r"messages\[0\].role: expected system, user or assistant, found 'tool'",
        ),
        (run(messages=[{"role": "user", "content": 1}]), r"messages\[0\].content: expected array, found number"),
        (run(info=[]), "info: expected object, found array"),
    ],
)
def test_bad_documents_name_the_place(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        read(document)
