"""Trajectories as the rows other trainers read: pure functions from a trajectory to JSON values.

Invariant: every step of a trajectory is a target of exactly one row or message, with the same tool and arguments; malformed and
never executed answers, demonstrations and copied context are in the context and never a target.

| format | a row | shape |
| --- | --- | --- |
| atif | trajectory | ATIF 1.8, as `import` writes it |
| sft-chat | trajectory | `messages` and `tools` as transformers' chat templates take them; `weight` 0 on what is no target |
| trl-prompt | step | `prompt` (messages), `completion` (one message), `tools` (a JSON text), `expected_action` |
| verl | step | `data_source, prompt, ability, reward_model{style, ground_truth}, extra_info`; arguments as JSON texts |
| nemo-gym | step | `responses_create_params{input, tools}, expected_action`: NeMo Gym's pivot rows |
| adp | trajectory | Agent Data Protocol: `id, content, details` |

`datasets` gives a JSON Lines column the shape it has in the file's first 10 MB: where runs of several scaffolds, and so of
different tools, go into one sft-chat or nemo-gym file, read it line by line or export one file a scaffold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from swe_srl.errors import UserError
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.atif import to_atif
from swe_srl.trajectories.chat import is_structured, openai_calls, split_observation
from swe_srl.trajectories.model import Step, Trajectory, Turn

Row = dict[str, Any]

_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def sft_chat(trajectory: Trajectory) -> Iterator[Row]:
    """One conversation with its tools."""
    yield {
        "messages": [message for i, turn in enumerate(trajectory.turns) for message in _messages(turn, i)],
        "tools": tool_definitions(trajectory),
        **_about(trajectory),
    }


def trl_prompt(trajectory: Trajectory) -> Iterator[Row]:
    """A prompt and the expert's answer for each step."""
    for step, context, answer in _steps(trajectory):
        yield {
            "prompt": context,
            "completion": [answer],
            "tools": json.dumps(tool_definitions(trajectory), ensure_ascii=False),
            "expected_action": _expected(step),
            "step": step.k,
            **_about(trajectory),
        }


def verl(trajectory: Trajectory) -> Iterator[Row]:
    """verl's rows for reinforcement learning; every row has the same fields, so that one table holds them."""
    for step, context, _ in _steps(trajectory):
        yield {
            "data_source": "swe-srl",
            "prompt": [_flat(message) for message in context],
            "ability": "code",
            "reward_model": {"style": "rule", "ground_truth": _expected(step)},
            "extra_info": {
                "index": step.k,
                "split": "train",
                "tools": json.dumps(tool_definitions(trajectory), ensure_ascii=False),
                **_about(trajectory),
            },
        }


def nemo_gym(trajectory: Trajectory) -> Iterator[Row]:
    """NeMo Gym's pivot rows. A step of several calls gives one row a call, as an expected action is one call."""
    tools = [{"type": "function", **_function(tool)} for tool in tool_definitions(trajectory)]
    for step, context, answer in _steps(trajectory):
        items = [item for message in context for item in _items(message)]
        for place, call in enumerate(_items({**answer, "content": ""})):
            yield {
                "uuid": step.id if len(step.action.calls) == 1 else f"{step.id}.{place}",
                "agent_ref": {"type": "responses_api_agents", "name": trajectory.scaffold},
                "responses_create_params": {"input": items, "tools": tools},
                "expected_action": {key: call[key] for key in ("type", "name", "arguments")},
                "metadata": {**_about(trajectory), "instance_id": trajectory.task_id, "step": step.k},
            }


def adp(trajectory: Trajectory) -> Iterator[Row]:
    """Agent Data Protocol. A shell's calls are code actions; a system message is a user's, named so.

    The protocol cannot say that an action is context only: such an answer is a message action, as a malformed one is.
    """
    content: list[Row] = []
    for turn in trajectory.turns:
        if turn.role != "agent":
            name = "system" if turn.role == "system" else None
            content.append({"class_": "text_observation", "content": turn.text, "name": name, "source": "user"})
            continue
        calls = turn.action.calls if turn.action and turn.is_step else ()
        if not calls:
            content.append({"class_": "message_action", "content": _as_said(turn), "description": None})
        for i, call in enumerate(calls):
            description = turn.thought if i == 0 and turn.thought else None
            if call.name == "bash" and set(call.arguments) == {"command"} and isinstance(call.arguments["command"], str):
                code = {"class_": "code_action", "language": "bash", "content": call.arguments["command"]}
                content.append({**code, "description": description})
            else:
                api = {"class_": "api_action", "function": call.name, "kwargs": dict(call.arguments)}
                content.append({**api, "description": description})
        if turn.observation is not None:
            seen = turn.observation.text
            content.append({"class_": "text_observation", "content": seen, "name": None, "source": "environment"})
    yield {"id": trajectory.id, "content": content, "details": {**_about(trajectory), "instance_id": trajectory.task_id}}


def atif(trajectory: Trajectory) -> Iterator[Row]:
    """The project's own form."""
    yield to_atif(trajectory)


FORMATS: Mapping[str, Callable[[Trajectory], Iterator[Row]]] = {
    "atif": atif,
    "sft-chat": sft_chat,
    "trl-prompt": trl_prompt,
    "verl": verl,
    "nemo-gym": nemo_gym,
    "adp": adp,
}


def tool_definitions(trajectory: Trajectory) -> list[Row]:
    """The tools of a run, as OpenAI defines them: its scaffold's, else the source's, else what its calls show of them.

    Fields that a JSON schema may leave out are written with what leaving them out means: every definition has one shape.
    """
    return [{"type": "function", "function": _filled(_function(tool))} for tool in _known_tools(trajectory)]


def _known_tools(trajectory: Trajectory) -> Sequence[Mapping[str, Any]]:
    try:
        return get_scaffold(trajectory.scaffold).tools
    except UserError:
        pass
    params = trajectory.extra.get("responses_create_params")
    for holder in (trajectory.extra, params if isinstance(params, dict) else {}):
        tools = holder.get("tools")
        if isinstance(tools, list) and tools and all(_is_definition(tool) for tool in tools):
            return tools
    return _shown_tools(trajectory)


def _shown_tools(trajectory: Trajectory) -> list[Row]:
    shown: dict[str, dict[str, Any]] = {}
    for turn in trajectory.turns:
        for call in turn.action.calls if turn.action else ():
            properties = shown.setdefault(call.name, {})
            for key, value in call.arguments.items():
                properties.setdefault(key, {"type": _KINDS[type(value)]} if type(value) in _KINDS else {})
    return [{"name": name, "parameters": {"properties": properties}} for name, properties in shown.items()]


def _filled(function: Row) -> Row:
    parameters = function.get("parameters")
    given = parameters if isinstance(parameters, dict) else {}
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": True} | given
    return {"description": "", **function, "parameters": schema}


def _is_definition(tool: object) -> bool:
    return isinstance(tool, dict) and isinstance(_function(tool).get("name"), str)


def _function(tool: Mapping[str, Any]) -> Row:
    function = tool.get("function")
    return dict(function) if isinstance(function, dict) else {key: value for key, value in tool.items() if key != "type"}


def _about(trajectory: Trajectory) -> dict[str, str]:
    """Texts only: a column that holds nothing for the first thousand rows has no type for the next."""
    return {
        "id": trajectory.id,
        "task_id": trajectory.task_id,
        "scaffold": trajectory.scaffold,
        "model": trajectory.model or "",
        "resolved": {True: "true", False: "false", None: ""}[trajectory.resolved],
    }


def _steps(trajectory: Trajectory) -> Iterator[tuple[Step, list[Row], Row]]:
    """Each step with the messages before it and the expert's."""
    context: list[Row] = []
    steps = {step.turn_index: step for step in trajectory.steps()}
    for i, turn in enumerate(trajectory.turns):
        messages = [{key: value for key, value in message.items() if key != "weight"} for message in _messages(turn, i)]
        if i in steps:
            yield steps[i], list(context), messages[0]
        context += messages


def _messages(turn: Turn, index: int) -> list[Row]:
    if turn.role != "agent":
        return [{"role": turn.role, "content": turn.text}]
    calls = turn.action.calls if turn.action else ()
    ids = [call.id or f"call_{index}_{place}" for place, call in enumerate(calls)]
    answer: Row = {"role": "assistant", "content": turn.thought if calls else _as_said(turn), "weight": int(turn.is_step)}
    if calls:
        answer["tool_calls"] = [
            {"id": call_id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
            for call_id, call in zip(ids, calls, strict=True)
        ]
    if turn.observation is None:
        return [answer]
    if not calls:
        return [answer, {"role": "user", "content": turn.observation.text}]
    names = {call_id: call.name for call_id, call in zip(ids, calls, strict=True)}
    parts = split_observation(turn.observation, ids)
    seen = [{"role": "tool", "tool_call_id": ids[min(i, len(ids) - 1)], **part} for i, part in enumerate(parts)]
    return [answer, *({**part, "name": names.get(part["tool_call_id"], calls[0].name)} for part in seen)]


def _as_said(turn: Turn) -> str:
    """An answer as one text: calls that stood beside its text, or could not be read, follow as they were written."""
    calls = openai_calls(turn) if is_structured(turn) else turn.extra.get("tool_calls")
    return "\n".join(part for part in (turn.text, json.dumps(calls, ensure_ascii=False) if calls else "") if part)


def _flat(message: Row) -> Row:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}}
        for call in message.get("tool_calls", ())
    ]
    return {**{key: message.get(key) for key in ("role", "content", "name", "tool_call_id")}, "tool_calls": calls or None}


def _items(message: Row) -> Sequence[Row]:
    """A message as OpenAI Responses items."""
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    calls = [
        {
            "type": "function_call",
            "call_id": call["id"],
            "name": call["function"]["name"],
            "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
        }
        for call in message.get("tool_calls", ())
    ]
    said = [{"type": "message", "role": message["role"], "content": message["content"]}] if message["content"] else []
    return [*said, *calls] if calls or said else [{"type": "message", "role": message["role"], "content": ""}]


def _expected(step: Step) -> str:
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in step.action.calls]
    return json.dumps(calls, ensure_ascii=False)
