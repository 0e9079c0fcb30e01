"""One good document of every format, written for these tests."""

from __future__ import annotations

import json
from typing import Any

from chat_messages import ASK, assistant, call, tool

LS = call("bash", {"command": "ls"})
MESSAGES: list[Any] = [{"role": "system", "content": "Be good."}, ASK, assistant("See.", LS), tool("a.py"), assistant("Done.")]
ITEMS: list[Any] = [
    {"role": "user", "content": "Fix it."},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "See."}]},
    {"type": "function_call", "name": "bash", "arguments": '{"command": "ls"}', "call_id": "c1"},
    {"type": "function_call_output", "call_id": "c1", "output": "a.py"},
]
RESPONSE = {"id": "r1", "choices": [{"message": assistant("See.", LS)}]}
EVENTS: list[Any] = [
    {"id": 0, "source": "user", "action": "message", "args": {"content": "Fix it."}},
    {"id": 1, "source": "agent", "action": "run", "args": {"command": "ls", "thought": "See."},
     "tool_call_metadata": {"tool_call_id": "c1", "model_response": RESPONSE}},
    {"id": 2, "source": "agent", "observation": "run", "cause": 1, "content": "a.py", "extras": {"metadata": {"exit_code": 0}}},
]  # fmt: skip
V1_EVENTS: list[Any] = [
    {"id": "a", "kind": "MessageEvent", "source": "user",
     "llm_message": {"role": "user", "content": [{"type": "text", "text": "Fix."}]}},
    {"id": "b", "kind": "ActionEvent", "source": "agent", "thought": [{"type": "text", "text": "See."}], "tool_call_id": "c1",
     "action": {"kind": "X"}, "tool_call": {"id": "c1", "name": "terminal", "arguments": "{}"}, "llm_response_id": "r"},
    {"id": "c", "kind": "ObservationEvent", "source": "environment", "tool_call_id": "c1", "action_id": "b",
     "observation": {"kind": "Y", "content": [{"type": "text", "text": "a.py"}], "metadata": {"exit_code": 0}}},
]  # fmt: skip
XML = "See.\n<function=bash>\n<parameter=command>ls</parameter>\n</function>"
NEBIUS = [
    {"role": "user", "text": "Fix."},
    {"role": "ai", "text": "See.\n```\nls\n```", "mask": True},
    {"role": "user", "text": "a.py"},
]
MINI_2 = [*MESSAGES[:4], {"role": "exit", "content": "diff", "extra": {"exit_status": "Submitted"}}]

DOCUMENTS: dict[str, Any] = {
    "mini-swe-agent-2": {"trajectory_format": "mini-swe-agent-1.1", "info": {"config": {}}, "messages": MINI_2},
    "swe-smith": {"messages": json.dumps(MESSAGES[:4]), "instance_id": "i", "resolved": True, "model": "m"},
    "swe-smith-xml": {"messages": [ASK, assistant(XML), {"role": "user", "content": "OBSERVATION:\na.py"}], "instance_id": "i"},
    "swe-gym-openhands": {"messages": MESSAGES, "instance_id": "i", "run_id": "r", "test_result": {"git_patch": "d"}},
    "nebius-openhands": {"trajectory": MESSAGES, "instance_id": "i", "tools": [], "resolved": 1, "model_patch": "d"},
    "nebius-swe-agent": {"trajectory": NEBIUS, "instance_id": "i", "target": True, "model_name": "m"},
    "openhands": {"instance_id": "i", "history": EVENTS, "metadata": {"llm_config": {"model": "m"}}, "error": None},
    "openhands-v1": V1_EVENTS,
    "r2e-gym": {
        "trajectory_steps": [{"thought": "See.", "action": XML, "observation": "a.py", "step_idx": 0}],
        "problem_statement": "Fix it.", "docker_image": "x:y", "reward": 1.0, "agent_args": {"llm_name": "m"},
    },
    "openai-chat": {"messages": MESSAGES, "tools": [{"type": "function", "function": {"name": "bash"}}]},
    "openai-responses": {"responses_create_params": {"input": ITEMS[:1]}, "response": {"output": ITEMS[1:], "model": "m"}},
    "nemo-gym-pivot": {"uuid": "u", "responses_create_params": {"input": ITEMS}, "expected_action": ITEMS[3]},
    "adp": {
        "id": "a",
        "content": [
            {"class_": "text_observation", "content": "Fix it.", "source": "user"},
            {"class_": "code_action", "language": "bash", "content": "ls", "description": "See."},
            {"class_": "text_observation", "content": "a.py", "source": "environment"},
        ],
        "details": {"resolved": "true"},
    },
}  # fmt: skip
