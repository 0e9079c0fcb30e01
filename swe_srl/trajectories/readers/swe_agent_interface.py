"""Which interface a SWE-agent run had, and the action in one of its answers.

Invariant: a name is given for every run, also for an interface that is not there: replay refuses it by that name.
The recording says what it can: the configured tools, else the calls; version 0 writes a step's state as text, not as an object;
of the search-and-replace editor there are two, told apart by their words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.scaffolds.swe_agent_windowed import SweAgentWindowed
from swe_srl.trajectories.reader import arguments_of, expect, optional

WINDOWED = "swe-agent-windowed"
_CURSORS = "set_cursors"
_WINDOWED_TOOLS = {"open", "goto", "scroll_up", "scroll_down", "create", "edit", "find_file", "search_dir", "search_file"}
_EARLY_REPLACE = re.compile(r"(?:Text replaced|Replaced \d+ occurrences)\. Please [^\n]*correct\r?\n\(correct indentation")
_FENCED = re.compile(r"^```[^\n`]*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"<command>\s*(.*?)\s*</command>", re.DOTALL)
_FUNCTION = re.compile(r"<function=([^>\n]+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)


def interface_of(history: list[Any], steps: list[Any], tools: Mapping[str, Any]) -> str:
    """The name of the scaffold. tools: the run's configuration of them, empty where the file has none."""
    items = [item for item in history if isinstance(item, dict)]
    bundles = _bundles(tools)
    calls = list(_calls(items))
    names = {name for name, _ in calls}
    typed_cursors = any(str(item.get("action")).startswith(_CURSORS) for item in items)
    if typed_cursors or _CURSORS in names or "cursors_defaults" in bundles:
        return "swe-agent-cursors"
    if any(isinstance(step, dict) and isinstance(step.get("state"), str) for step in steps):
        return f"{WINDOWED}-0"
    if bundles & {"edit_replace", "windowed_edit_replace"} or any(
        name == "edit" and "search" in given for name, given in calls
    ):
        return f"{WINDOWED}-replace" + ("-2024" if any(_EARLY_REPLACE.search(text) for text in _texts(items)) else "")
    if bundles & {"windowed", "windowed_edit_linting", "edit_linting"} or names & _WINDOWED_TOOLS:
        return WINDOWED
    return "swe-agent-review" if any("review_on_submit" in bundle for bundle in bundles) else "swe-agent"


def _bundles(tools: Mapping[str, Any]) -> set[str]:
    bundles = optional(tools.get("bundles"), list, "replay_config.agent.tools.bundles") or []
    paths = [bundle.get("path") for bundle in bundles if isinstance(bundle, dict)]
    return {path.rstrip("/").rsplit("/", 1)[-1] for path in paths if isinstance(path, str)}


def _calls(items: list[dict[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for item in items:
        for call in item.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                yield function["name"], arguments_of(function.get("arguments")) or {}


def _texts(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        content = item.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        yield from (part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def called(calls: list[Any], where: str) -> Action:
    """The action of an answer in tool calls."""
    if len(calls) != 1:
        return Action(error=f"found {len(calls)} tool calls")
    call = expect(calls[0], dict, f"{where}[0]")
    function = expect(call.get("function"), dict, f"{where}[0].function")
    name = expect(function.get("name"), str, f"{where}[0].function.name")
    arguments = arguments_of(function.get("arguments"))
    if arguments is None:
        return Action(error=f"the arguments of {name} are not a JSON object")
    return Action((ToolCall(name, arguments, optional(call.get("id"), str, f"{where}[0].id") or ""),))


def written(item: Mapping[str, Any], text: str, scaffold: str, where: str) -> Action:
    """The action of an answer in text: a call in XML, else the command that the run took from it."""
    functions = _FUNCTION.findall(text)
    if len(functions) == 1:
        return Action((ToolCall(functions[0][0].strip(), dict(_PARAMETER.findall(functions[0][1]))),))
    command = optional(item.get("action"), str, f"{where}.action")
    if command is None:
        found = _COMMAND.findall(text) or _FENCED.findall(text)
        if not found:
            return Action(error="found no command")
        command = found[-1]
    if not command.strip():
        return Action(error="the command is empty")
    return Action((typed(command, scaffold),))


def typed(command: str, scaffold: str) -> ToolCall:
    """The call in a command as it was typed."""
    if scaffold.startswith(WINDOWED):
        return SweAgentWindowed(scaffold.removeprefix(WINDOWED).lstrip("-") or "lines").parse_command(command)
    if command.strip() == "submit":
        return ToolCall("submit", {})
    return ToolCall("bash", {"command": command.removesuffix("\n")})


def first_directory(steps: list[Any]) -> str | None:
    """The directory in which the first step left the shell, as its state has it."""
    step = steps[0] if steps and isinstance(steps[0], dict) else {}
    state = step.get("state")
    state = arguments_of(state) if isinstance(state, str) else state
    directory = state.get("working_dir") if isinstance(state, dict) else None
    return directory if isinstance(directory, str) and directory.startswith("/") else None
