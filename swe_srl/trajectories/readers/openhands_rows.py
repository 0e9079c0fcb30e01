"""Reads rows of OpenHands runs that are published as messages: SWE-Gym's sampled rows and Nebius' (SWE-rebench).

Invariant: the messages are what the model saw; arguments are JSON texts, typed by being JSON; answers of models without tool
calls carry `<function=…>` tags. Built from the documented columns: `messages, tools, resolved, run_id, test_result` and
`trajectory, tools, model_patch, exit_status, resolved`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from swe_srl.scaffolds.base import Observation
from swe_srl.trajectories.actions import parameter_types, parse_xml
from swe_srl.trajectories.chat import Dialect, read_turns
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, resolved_of, without
from swe_srl.trajectories.readers.swe_smith import messages_of

_EXIT = re.compile(r"\[(?:The command completed|Command finished) with exit code (-?\d+)\.?\]\s*\Z")


class SweGymReader:
    """Rows of SWE-Gym's sampled OpenHands runs."""

    name: str = "swe-gym-openhands"

    def detect(self, head: object) -> bool:
        """True for messages with an instance and the number or the test result of a run."""
        if not isinstance(head, dict) or not {"messages", "instance_id"} <= set(head):
            return False
        return bool({"run_id", "test_result"} & set(head)) and isinstance(head["messages"], str | list)

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        run = document.get("run_id")
        task = optional(document.get("instance_id"), str, "instance_id") or origin.name
        result = mapping_of(document, "test_result")
        patch = result.get("git_patch")
        return Trajectory(
            id=f"{task}--{run}" if isinstance(run, str | int) and run != "" else origin.name,
            task_id=task,
            scaffold="openhands",
            format=self.name,
            turns=tuple(_turns(messages_of(document), document.get("tools"), "messages")),
            model=optional(document.get("model"), str, "model"),
            resolved=resolved_of(document.get("resolved")),
            submission=patch if isinstance(patch, str) else None,
            extra=without(document, ("messages", "instance_id", "model", "resolved")),
        )


class NebiusOpenHandsReader:
    """Rows of Nebius' OpenHands runs, and of collections with the same columns."""

    name: str = "nebius-openhands"

    def detect(self, head: object) -> bool:
        """True for a `trajectory` of messages that have a role and a content, beside an instance."""
        return isinstance(head, dict) and "instance_id" in head and has_messages(head.get("trajectory"), "content")

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        messages = expect(document.get("trajectory"), list, "trajectory")
        used = ("trajectory", "trajectory_id", "instance_id", "model", "resolved", "exit_status", "model_patch")
        return Trajectory(
            id=optional(document.get("trajectory_id"), str, "trajectory_id") or origin.name,
            task_id=optional(document.get("instance_id"), str, "instance_id") or origin.name,
            scaffold="openhands",
            format=self.name,
            turns=tuple(_turns(messages, document.get("tools"), "trajectory")),
            model=optional(document.get("model"), str, "model"),
            resolved=resolved_of(document.get("resolved")),
            exit_status=optional(document.get("exit_status"), str, "exit_status"),
            submission=optional(document.get("model_patch"), str, "model_patch"),
            extra=without(document, used),
        )


def has_messages(value: object, text_field: str) -> bool:
    """True for an array whose first item is a message with a role and its text under `text_field`."""
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and isinstance(first.get("role"), str) and text_field in first


def _turns(messages: list[Any], tools: object, where: str) -> list[Turn]:
    if not messages:
        raise DocumentError(f"{where}: empty")
    types = parameter_types(tools)
    tagged = any("<function=" in str(item.get("content")) for item in messages if _is_answer(item))
    structured = any(item.get("tool_calls") for item in messages if _is_answer(item))
    parse = (lambda text, _: parse_xml(text, types)) if tagged and not structured else None
    return read_turns(messages, Dialect(parse, observe), where)


def _is_answer(item: object) -> bool:
    return isinstance(item, dict) and item.get("role") == "assistant"


def observe(text: str) -> Observation:
    """An OpenHands observation: its text ends with the exit code of a command."""
    match = _EXIT.search(text[-200:])
    return Observation(text, returncode=int(match[1]) if match else None)
