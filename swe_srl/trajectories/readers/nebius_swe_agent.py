"""Reads rows of Nebius' SWE-agent runs: `trajectory[{role, text, system_prompt, mask, cutoff_date}]`, roles system, user, ai.

Invariant: an answer is prose and one command between ``` marks; one whose `mask` is false was left out of training by its
makers and is context here. Built from the documented columns and the published example rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.trajectories.actions import parse_fenced
from swe_srl.trajectories.chat import Dialect, read_turns
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import Origin, expect, optional, resolved_of, without
from swe_srl.trajectories.readers.openhands_rows import has_messages

_ROLES = {"ai": "assistant"}
_USED = ("trajectory", "instance_id", "model_name", "target", "exit_status", "generated_patch")


class NebiusSweAgentReader:
    """Rows of Nebius' SWE-agent runs."""

    name: str = "nebius-swe-agent"

    def detect(self, head: object) -> bool:
        """True for a `trajectory` of items that have a role and a text."""
        return isinstance(head, dict) and has_messages(head.get("trajectory"), "text")

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        items = expect(document.get("trajectory"), list, "trajectory")
        messages = [_message(expect(item, dict, f"trajectory[{i}]")) for i, item in enumerate(items)]
        return Trajectory(
            id=origin.name,
            task_id=optional(document.get("instance_id"), str, "instance_id") or origin.name,
            scaffold="swe-agent",
            format=self.name,
            turns=tuple(read_turns(messages, Dialect(lambda text, _: parse_fenced(text)), "trajectory")),
            model=optional(document.get("model_name"), str, "model_name"),
            resolved=resolved_of(document.get("target"), "target"),
            exit_status=optional(document.get("exit_status"), str, "exit_status"),
            submission=optional(document.get("generated_patch"), str, "generated_patch"),
            extra=without(document, _USED),
        )


def _message(item: Mapping[str, Any]) -> dict[str, Any]:
    role = item.get("role")
    field = "system_prompt" if role == "system" and item.get("text") is None else "text"
    named = {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": item.get(field)}
    return without(item, ("role", field)) | named | {"is_demo": role == "ai" and item.get("mask") is False}
