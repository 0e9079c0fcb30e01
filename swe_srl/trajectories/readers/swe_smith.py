"""Reads rows of SWE-smith's training data: `messages`, often as a JSON text, beside `instance_id`.

Invariant: an answer's action is its `tool_calls` (split tool), its `<function=…>` tags (split xml), or its last fenced command
(split ticks); one row keeps to one of them. Built from the published rows of split xml and the documented columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.scaffolds.base import Action, Observation
from swe_srl.trajectories.actions import OBSERVED, parameter_types, parse_fenced, parse_xml
from swe_srl.trajectories.chat import Dialect, Said, read_turns
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, loads, optional, resolved_of, without

_NO_OUTPUT = "Your command ran successfully and did not produce any output."
_REVIEW = "Thank you for your work on this issue."
_OTHERS = ("run_id", "test_result", "info", "trajectory_format", "trajectory")


class SweSmithReader:
    """SWE-smith message rows."""

    name: str = "swe-smith"

    def detect(self, head: object) -> bool:
        """True for messages with an instance, and nothing that marks a row of another collection."""
        if not isinstance(head, dict) or not {"messages", "instance_id"} <= set(head) or set(head) & set(_OTHERS):
            return False
        return isinstance(head["messages"], str | list)

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        messages = messages_of(document)
        turns = read_turns(messages, _dialect(messages, document.get("tools")))
        return Trajectory(
            id=optional(document.get("traj_id"), str, "traj_id") or origin.name,
            task_id=optional(document.get("instance_id"), str, "instance_id") or origin.name,
            scaffold="swe-agent-review" if _reviewed(turns) else "swe-agent",
            format=self.name,
            turns=tuple(turns),
            model=optional(document.get("model"), str, "model"),
            resolved=resolved_of(document.get("resolved")),
            submission=optional(document.get("patch"), str, "patch"),
            extra=without(document, ("messages", "traj_id", "instance_id", "model", "resolved", "patch")),
        )


def messages_of(document: Mapping[str, Any]) -> list[Any]:
    """A row's messages, an array or the JSON text of one. Raises DocumentError."""
    messages = document.get("messages")
    if isinstance(messages, str):
        try:
            messages = loads(messages)
        except ValueError as error:
            raise DocumentError(f"messages: not JSON: {error}") from None
    found = expect(messages, list, "messages")
    if not found:
        raise DocumentError("messages: empty")
    return found


def _dialect(messages: list[Any], tools: object) -> Dialect:
    answers = [message for message in messages if isinstance(message, dict) and message.get("role") == "assistant"]
    if any(message.get("tool_calls") for message in answers):
        return Dialect(lambda text, _: _without_call(text), _observe)
    if any("<function=" in message["content"] for message in answers if isinstance(message.get("content"), str)):
        types = parameter_types(tools)
        return Dialect(lambda text, _: parse_xml(text, types), _observe)
    return Dialect(lambda text, _: parse_fenced(text), _observe)


def _without_call(text: str) -> Said:
    return Said(text, Action(error="found 0 tool calls"))


def _observe(text: str) -> Observation:
    if text == _NO_OUTPUT:
        return Observation(text, "")
    return Observation(text, text.removeprefix(OBSERVED) if text.startswith(OBSERVED) else None)


def _reviewed(turns: list[Turn]) -> bool:
    return any(turn.observation and turn.observation.compared.startswith(_REVIEW) for turn in turns)
