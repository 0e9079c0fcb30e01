"""Actions that stand in an answer's text: XML function calls and fenced commands.

Invariant: a text that is not exactly of the form gives an action with an error that says why, never a guess; the text itself
stays in the turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.chat import Said

OBSERVED = "OBSERVATION:\n"
"""What SWE-agent writes before an output."""

_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>(.*?)</parameter>", re.DOTALL)
_FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_KINDS: Mapping[str, type] = {"array": list, "integer": int, "boolean": bool, "object": dict, "number": float}
_KNOWN: Mapping[str, str] = {"view_range": "array", "insert_line": "integer", "concise": "boolean", "timeout": "number"}
"""Types of parameters that the editors and shells of SWE-agent, OpenHands and R2E-Gym share."""


def parameter_types(tools: object) -> dict[tuple[str, str], str]:
    """(tool, parameter) → JSON type, as OpenAI-style tool definitions declare them."""
    types: dict[tuple[str, str], str] = {}
    for tool in tools if isinstance(tools, list) else []:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        parameters = function.get("parameters") if isinstance(function, dict) else None
        properties = parameters.get("properties") if isinstance(parameters, dict) else None
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            kind = schema.get("type") if isinstance(schema, dict) else None
            if isinstance(kind, str) and isinstance(function, dict) and isinstance(function.get("name"), str):
                types[function["name"], name] = kind
    return types


def parse_xml(text: str, types: Mapping[tuple[str, str], str] | None = None) -> Said:
    """The `<function=…><parameter=…>` calls of an answer; its thought is the prose before the first.

    A value loses one line end at each side; it is read as JSON where the parameter has another type than text and it fits.
    """
    functions = list(_FUNCTION.finditer(text))
    opened = text.count("<function=")
    if not functions or opened != len(functions):
        state = "not closed" if opened else "not there"
        return Said(text.strip(), Action(error=f"the function call is {state}"))
    calls = []
    for function in functions:
        name, body = function[1].strip(), function[2]
        arguments: dict[str, Any] = {}
        for parameter in _PARAMETER.finditer(body):
            key = parameter[1].strip()
            value = re.sub(r"\A\n|\n\Z", "", parameter[2])
            arguments[key] = _typed(value, (types or {}).get((name, key)) or _KNOWN.get(key, "string"))
        if _PARAMETER.sub("", body).strip():
            return Said(text.strip(), Action(error=f"text beside the parameters of {name}"))
        calls.append(ToolCall(name, arguments))
    return Said(text[: functions[0].start()].strip(), Action(tuple(calls)))


def parse_fenced(text: str) -> Said:
    """The last fenced block of an answer as a shell command, as SWE-agent's thought-action parser takes it."""
    blocks = list(_FENCE.finditer(text))
    if not blocks:
        return Said(text.strip(), Action(error="no command between ``` marks"))
    return Said(text[: blocks[-1].start()].strip(), command_action(blocks[-1][1].strip("\n")))


def command_action(command: str) -> Action:
    """A command line as the tool call it is: `submit`, or a shell command. Tools that are programs stay commands."""
    if command.strip() == "submit":
        return Action((ToolCall("submit", {}),))
    return Action((ToolCall("bash", {"command": command}),)) if command.strip() else Action(error="an empty command")


def names_of(actions: Iterable[Action | None]) -> set[str]:
    """The tools that actions call."""
    return {call.name for action in actions if action for call in action.calls}


def _typed(value: str, kind: str) -> Any:
    if kind not in _KINDS:
        return value
    try:
        typed = json.loads(value.lower() if kind == "boolean" else value)
    except (ValueError, RecursionError):
        return value
    fits = isinstance(typed, _KINDS[kind]) or (kind == "number" and isinstance(typed, int))
    return typed if fits and (kind == "boolean" or not isinstance(typed, bool)) else value
