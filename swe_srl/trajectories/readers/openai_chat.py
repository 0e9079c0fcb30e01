"""Reads conversations in the form of OpenAI's chat completions: an array of messages, or an object that holds one.

Invariant: the last reader to be asked: any format with messages and marks of its own has a reader before this one. Answers
without `tool_calls` are messages without an action.
"""

from __future__ import annotations

from typing import Any

from swe_srl.trajectories.actions import parse_xml
from swe_srl.trajectories.chat import Dialect, read_turns
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import DocumentError, Origin, optional, resolved_of, without
from swe_srl.trajectories.readers.openhands_rows import has_messages
from swe_srl.trajectories.readers.swe_smith import messages_of

_IDS = ("id", "trajectory_id", "traj_id")
_TASKS = ("instance_id", "task_id")


class OpenAIChatReader:
    """OpenAI chat messages."""

    name: str = "openai-chat"

    def detect(self, head: object) -> bool:
        """True for messages with role and content, bare or under `messages`."""
        messages = head.get("messages") if isinstance(head, dict) else head
        return has_messages(messages, "content") or (isinstance(head, dict) and isinstance(messages, str))

    def read(self, document: Any, origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        row = document if isinstance(document, dict) else {"messages": document}
        messages = messages_of(row)
        turns = read_turns(messages, Dialect(_parser(messages)))
        if not any(turn.role == "agent" for turn in turns):
            raise DocumentError("messages: none of role assistant")
        task = next((row[key] for key in _TASKS if isinstance(row.get(key), str) and row[key]), None)
        own_id = next((row[key] for key in _IDS if isinstance(row.get(key), str) and row[key]), None)
        scaffold = row.get("scaffold")
        return Trajectory(
            id=own_id or origin.name,
            task_id=task or origin.name,
            scaffold=scaffold if isinstance(scaffold, str) and scaffold else "unknown",
            format=self.name,
            turns=tuple(turns),
            model=optional(row.get("model"), str, "model"),
            resolved=resolved_of(row.get("resolved")),
            extra=without(row, ("messages", "model", "resolved")),
        )


def _parser(messages: list[Any]) -> Any:
    answers = [item for item in messages if isinstance(item, dict) and item.get("role") == "assistant"]
    tagged = any("<function=" in str(item.get("content")) for item in answers)
    return (lambda text, _: parse_xml(text)) if tagged and not any(item.get("tool_calls") for item in answers) else None
