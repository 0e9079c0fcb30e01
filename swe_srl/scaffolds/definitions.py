"""OpenAI-style definitions of tools, and the check that a call keeps to them.

Invariant: a call that `check` lets through names a tool that is defined, has every required argument and no unknown one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_srl.scaffolds.base import ToolCall

Definition = Mapping[str, Any]


def tool(name: str, description: str, arguments: Mapping[str, Mapping[str, Any]], required: Sequence[str] = ()) -> Definition:
    """A tool and its arguments."""
    parameters = {"type": "object", "properties": arguments, "required": list(required), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def string(description: str, **more: Any) -> Mapping[str, Any]:
    """An argument that is text."""
    return {"type": "string", "description": description, **more}


def integer(description: str) -> Mapping[str, Any]:
    """An argument that is a whole number."""
    return {"type": "integer", "description": description}


def check(tools: Sequence[Definition], call: ToolCall, scaffold: str) -> None:
    """Raise ValueError unless the definitions allow the call. scaffold: the name that the error gives."""
    schema = next((tool["function"]["parameters"] for tool in tools if tool["function"]["name"] == call.name), None)
    if schema is None:
        raise ValueError(f"{scaffold} has no tool {call.name!r}")
    for name in schema["required"]:
        if call.arguments.get(name) is None:
            raise ValueError(f"{call.name}: argument {name!r} is missing")
    for name, value in call.arguments.items():
        if name not in schema["properties"]:
            raise ValueError(f"{call.name}: unknown argument {name!r}")
        # Numbers and lists may come as text, as in an answer written in XML; the tool reads and judges them.
        if value is not None and schema["properties"][name]["type"] == "string" and not isinstance(value, str):
            raise ValueError(f"{call.name}: argument {name!r} must be text, not {type(value).__name__}")
