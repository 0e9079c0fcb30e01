"""ATIF both ways: our own trajectories exactly, other agents' without loss."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.atif import from_atif, to_atif
from swe_srl.trajectories.model import Sampled, Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin

TRAJECTORY = Trajectory(
    id="run-1",
    task_id="lib__lib-7",
    scaffold="mini-swe-agent",
    format="mini-swe-agent-1",
    turns=(
        Turn("user", "Fix it."),
        Turn(
            "agent",
            "I look.\n\n```bash\nls\n```",
            "I look.",
            Action((ToolCall("bash", {"command": "ls"}),)),
            Observation("<returncode>0</returncode>\n<output>\na.py\n</output>", "a.py\n", 0, {"seen": 1}),
            extra={"cost": None},
        ),
        Turn("agent", "ls ls", "ls ls", Action(error="found 0 bash blocks"), Observation("One block, please.")),
    ),
    model="expert",
    resolved=True,
    timeout_seconds=60.0,
    workdir="/lib",
    environment={"PAGER": "cat"},
)

DOCUMENT = {
    "schema_version": "ATIF-v1.8",
    "trajectory_id": "run-1",
    "agent": {"name": "mini-swe-agent", "version": "unknown", "model_name": "expert"},
    "steps": [
        {"step_id": 1, "source": "user", "message": "Fix it."},
        {
            "step_id": 2,
            "source": "agent",
            "message": "I look.\n\n```bash\nls\n```",
            "tool_calls": [
                {
                    "tool_call_id": "call_2_0",
                    "function_name": "bash",
                    "arguments": {"command": "ls"},
                    "extra": {"swe_srl": {"id": ""}},
                }
            ],
            "observation": {
                "results": [
                    {
                        "source_call_id": "call_2_0",
                        "content": "<returncode>0</returncode>\n<output>\na.py\n</output>",
                        "extra": {"swe_srl": {"returncode": 0, "extra": {"seen": 1}, "output": [36, 41]}},
                    }
                ]
            },
            "extra": {"swe_srl": {"extra": {"cost": None}, "thought": [0, 7]}},
        },
        {
            "step_id": 3,
            "source": "agent",
            "message": "ls ls",
            "tool_calls": [],
            "observation": {"results": [{"content": "One block, please."}]},
            "extra": {"swe_srl": {"thought": [0, 5], "error": "found 0 bash blocks"}},
        },
    ],
    "extra": {
        "swe_srl": {
            "version": 1,
            "task_id": "lib__lib-7",
            "format": "mini-swe-agent-1",
            "resolved": True,
            "timeout_seconds": 60.0,
            "workdir": "/lib",
            "environment": {"PAGER": "cat"},
        }
    },
}


def test_known_document() -> None:
    assert to_atif(TRAJECTORY) == DOCUMENT
    assert from_atif(DOCUMENT) == TRAJECTORY


def test_thought_outside_the_text_is_reasoning_content() -> None:
    trajectory = Trajectory("i", "t", "s", "f", (Turn("agent", "", "because", Action((ToolCall("submit", {}, "c1"),))),))
    step = to_atif(trajectory)["steps"][0]
    assert step["reasoning_content"] == "because"
    assert step["tool_calls"] == [{"tool_call_id": "c1", "function_name": "submit", "arguments": {}}]


TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EXTRA = st.dictionaries(TEXT, JSON, max_size=3)
CALLS = st.lists(st.builds(ToolCall, TEXT, EXTRA, st.sampled_from(["", "c1", "call_1_0"]) | TEXT), max_size=3).map(tuple)
MAYBE_TEXT = st.none() | TEXT
OBSERVATION = st.builds(Observation, TEXT, MAYBE_TEXT, st.none() | st.integers(-255, 255), EXTRA)


IDS = st.lists(st.integers(0, 3), max_size=6).map(tuple)
LOGPROBS = st.lists(st.floats(-9, 0), max_size=3).map(tuple)
SAMPLED = st.builds(Sampled, st.integers(0, 9), st.integers(0, 9), IDS, IDS, LOGPROBS)


@st.composite
def agent_turns(draw: st.DrawFn) -> Turn:
    text = draw(TEXT)
    return Turn(
        "agent",
        text,
        draw(TEXT | st.just(text) | st.just(text[1:3])),
        draw(st.none() | st.builds(Action, CALLS) | st.builds(Action, error=TEXT)),
        draw(st.none() | OBSERVATION | st.just(Observation(f"<{text}>", text))),
        draw(st.booleans()),
        draw(EXTRA),
        draw(st.none() | SAMPLED),
    )


TURNS = st.builds(Turn, st.sampled_from(["system", "user"]), TEXT, context_only=st.booleans(), extra=EXTRA) | agent_turns()
TRAJECTORIES = st.builds(
    Trajectory,
    id=TEXT,
    task_id=TEXT,
    scaffold=TEXT,
    format=TEXT,
    turns=st.lists(TURNS, max_size=4).map(tuple),
    model=MAYBE_TEXT,
    resolved=st.none() | st.booleans(),
    exit_status=MAYBE_TEXT,
    submission=MAYBE_TEXT,
    environment=st.dictionaries(TEXT, TEXT, max_size=2),
    timeout_seconds=st.none() | st.floats(0, 1e6),
    workdir=st.none() | st.text(),
    extra=EXTRA,
)


@settings(max_examples=200, deadline=None)
@given(TRAJECTORIES)
def test_every_trajectory_comes_back_from_disk(trajectory: Trajectory) -> None:
    assert from_atif(json.loads(json.dumps(to_atif(trajectory)))) == trajectory


def test_a_prompt_is_written_as_what_it_adds_to_the_sampled_turn_before() -> None:
    first = Turn("agent", "ab", sampled=Sampled(3, 2, (7, 8, 9), (1, 2), (-0.5, -0.25)))
    second = Turn("agent", "c", sampled=Sampled(6, 1, (7, 8, 9, 1, 4, 5), (3,), (-1.0,)))
    document = to_atif(Trajectory("i", "t", "s", "f", (first, Turn("user", "no"), second)))
    assert [step.get("metrics") for step in document["steps"]] == [
        {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "completion_token_ids": [1, 2],
            "logprobs": [-0.5, -0.25],
            "extra": {"swe_srl": {"prompt": {"shared": 0, "ids": [7, 8, 9]}}},
        },
        None,
        {
            "prompt_tokens": 6,
            "completion_tokens": 1,
            "completion_token_ids": [3],
            "logprobs": [-1.0],
            "extra": {"swe_srl": {"prompt": {"shared": 4, "ids": [4, 5]}}},
        },
    ]


def test_only_agents_have_thoughts_actions_and_observations() -> None:
    for turn in (
        Turn("user", "hi", thought="hm"),
        Turn("user", "hi", action=Action((ToolCall("bash", {}),))),
        Turn("system", "hi", observation=Observation("x")),
        Turn("user", "hi", sampled=Sampled(1, 1)),
    ):
        with pytest.raises(ValueError, match=r"turn 1: a (user|system) turn has no thought, action or observation"):
            to_atif(Trajectory("i", "t", "s", "f", (turn,)))


def foreign(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"schema_version": "ATIF-v1.6", "session_id": "s-1", "agent": {"name": "walker"}, "steps": list(steps), **fields}


def test_another_agents_run() -> None:
    calls = [{"tool_call_id": "c1", "function_name": "run", "arguments": {"cmd": "ls"}}]
    trajectory = from_atif(
        foreign(
            {"step_id": 1, "source": "user", "message": [{"type": "text", "text": "Fix"}, {"type": "text", "text": "it."}]},
            {
                "step_id": 2,
                "source": "agent",
                "timestamp": "2025-01-01T00:00:00Z",
                "message": "I look.",
                "reasoning_content": "Where?",
                "tool_calls": calls,
                "observation": {"results": [{"source_call_id": "c1", "content": "a.py"}, {"content": "b.py"}]},
                "metrics": {"prompt_tokens": 5},
            },
            {"step_id": 3, "source": "agent", "message": "copied", "tool_calls": calls, "is_copied_context": True},
            {"step_id": 4, "source": "agent", "message": "", "tool_calls": calls, "llm_call_count": 0},
            {"step_id": 5, "source": "agent", "message": "Done."},
            agent={"name": "walker", "version": "2", "model_name": "m"},
            extra={"instance_id": "lib-7", "resolved": False, "score": 0},
            final_metrics={"total_steps": 5},
        )
    )
    assert (trajectory.id, trajectory.task_id, trajectory.scaffold, trajectory.model) == ("s-1", "lib-7", "walker", "m")
    assert (trajectory.format, trajectory.resolved) == ("atif", False)
    assert trajectory.extra == {
        "schema_version": "ATIF-v1.6",
        "session_id": "s-1",
        "extra": {"instance_id": "lib-7", "resolved": False, "score": 0},
        "final_metrics": {"total_steps": 5},
        "agent": {"version": "2"},
    }
    user, look, copied, dispatched, done = trajectory.turns
    assert user.text == "Fix\nit."
    assert (look.text, look.thought) == ("I look.", "Where?\n\nI look.")
    assert look.action == Action((ToolCall("run", {"cmd": "ls"}, "c1"),))
    assert look.observation == Observation("a.py\nb.py")
    assert look.extra == {
        "timestamp": "2025-01-01T00:00:00Z",
        "metrics": {"prompt_tokens": 5},
        "observation": {"results": [{"source_call_id": "c1", "content": "a.py"}, {"content": "b.py"}]},
    }
    assert copied.context_only
    assert dispatched.context_only
    assert (done.action, done.extra) == (None, {})
    assert [step.turn for step in trajectory.steps()] == [look]
    assert from_atif(to_atif(trajectory)) == trajectory


def test_names_come_from_the_file_where_the_document_has_none() -> None:
    document = {"schema_version": "ATIF-v1.0", "steps": [], "future_field": [1]}
    trajectory = from_atif(document, Origin("run", row=3))
    assert (trajectory.id, trajectory.task_id, trajectory.scaffold) == ("run-3", "run", "unknown")
    assert trajectory.extra["future_field"] == [1]


def test_arguments_may_be_json_text_and_must_be_an_object() -> None:
    def action(arguments: object) -> Turn:
        step = {"source": "agent", "message": "", "tool_calls": [{"function_name": "run", "arguments": arguments}]}
        return from_atif(foreign(step)).turns[0]

    assert action('{"cmd": "ls"}').action == Action((ToolCall("run", {"cmd": "ls"}),))
    broken = action('{"cmd": ')
    assert broken.action == Action(error="the arguments of run are not a JSON object")
    assert broken.extra["tool_calls"] == [{"function_name": "run", "arguments": '{"cmd": '}]


def test_an_image_leaves_its_mark_in_the_text_and_stays_in_extra() -> None:
    message = [{"type": "text", "text": "see"}, {"type": "image", "source": {"media_type": "image/png", "path": "a.png"}}]
    turn = from_atif(foreign({"source": "user", "message": message})).turns[0]
    assert turn.text == "see\n[image: a.png]"
    assert turn.extra == {"message": message}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"schema_version": "ATIF-v2.0", "steps": []}, "schema_version: expected ATIF-v1.0 to ATIF-v1.8, found 'ATIF-v2.0'"),
        ({"schema_version": "ATIF-v1.4"}, "steps: expected array, found null"),
        (foreign({"source": "tool"}), r"steps\[0\].source: expected system, user or agent, found 'tool'"),
        (
            foreign({"source": "agent", "tool_calls": [{}]}),
            r"steps\[0\].tool_calls\[0\].function_name: expected text, found null",
        ),
        (foreign({"source": "agent", "observation": {"results": [1]}}), r"results\[0\]: expected object, found number"),
        (foreign(extra={"swe_srl": {"version": 2}}), "extra.swe_srl.version: this swe-srl reads 1, found 2"),
        ({**DOCUMENT, "trajectory_id": True}, "trajectory_id: expected text, found true or false"),
    ],
)
def test_bad_documents_name_the_place(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(DocumentError, match=reason):
        from_atif(document)
