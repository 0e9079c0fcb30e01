"""The trajectory formats that are read, one file each, and what is said about those that are not.

Invariant: `find_reader` and `unread_reason` take any decoded JSON and never raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.trajectories.reader import Reader
from swe_srl.trajectories.readers.atif import AtifReader
from swe_srl.trajectories.readers.mini_swe_agent_1 import MiniSweAgent1Reader
from swe_srl.trajectories.readers.swe_agent import SweAgentReader

READERS: tuple[Reader, ...] = (AtifReader(), MiniSweAgent1Reader(), SweAgentReader())
"""In the order they are asked."""

_SHOWN_KEYS = 8


def find_reader(document: object) -> Reader | None:
    """The reader of a decoded document's format, None when there is none."""
    return next((reader for reader in READERS if reader.detect(document)), None)


def unread_reason(document: object) -> str:
    """Why no reader takes this document: the format it seems to be in, or what was seen."""
    if not isinstance(document, dict):
        return f"unknown format: a JSON {'array' if isinstance(document, list) else 'value'}, no object"
    name = _known_format(document)
    if name:
        return f"{name}: this format is not read yet"
    keys = ", ".join(list(document)[:_SHOWN_KEYS]) + (", …" if len(document) > _SHOWN_KEYS else "")
    return f"unknown format; top-level keys: {keys}" if document else "unknown format: an empty object"


def _known_format(document: Mapping[str, Any]) -> str | None:
    keys = set(document)
    history = document.get("history")
    first = history[0] if isinstance(history, list) and history else None
    if "schema_version" in keys and "steps" in keys:
        return f"ATIF of version {document['schema_version']!r} (1.0 to 1.8 are read)"
    if "trajectory_format" in keys:
        return str(document["trajectory_format"])
    if isinstance(first, dict) and "role" in first:
        return "SWE-agent without tool calls (thought-action or XML)"
    if isinstance(first, dict) and keys & {"instance_id", "metadata"}:
        return "OpenHands event history"
    if "responses_create_params" in keys:
        return "NeMo Gym PivotRL row" if "expected_action" in keys else "NeMo Gym rollout (OpenAI Responses items)"
    if {"messages", "instance_id"} <= keys:
        return "SWE-smith messages"
    if {"model_patch", "instance_id"} <= keys:
        return "SWE-bench predictions (patches without steps)"
    return None
