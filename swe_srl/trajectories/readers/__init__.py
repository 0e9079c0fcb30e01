"""The trajectory formats that are read, one file each, and what is said about those that are not.

Invariant: `find_reader` and `unread_reason` take any decoded JSON and never raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.trajectories.reader import Reader
from swe_srl.trajectories.readers.adp import AdpReader
from swe_srl.trajectories.readers.atif import AtifReader
from swe_srl.trajectories.readers.mini_swe_agent_1 import MiniSweAgent1Reader
from swe_srl.trajectories.readers.mini_swe_agent_2 import MiniSweAgent2Reader
from swe_srl.trajectories.readers.nebius_swe_agent import NebiusSweAgentReader
from swe_srl.trajectories.readers.nemo_gym_pivot import NemoGymPivotReader
from swe_srl.trajectories.readers.openai_chat import OpenAIChatReader
from swe_srl.trajectories.readers.openai_responses import OpenAIResponsesReader
from swe_srl.trajectories.readers.openhands import OpenHandsReader
from swe_srl.trajectories.readers.openhands_rows import NebiusOpenHandsReader, SweGymReader
from swe_srl.trajectories.readers.r2e_gym import R2EGymReader
from swe_srl.trajectories.readers.swe_agent import SweAgentReader
from swe_srl.trajectories.readers.swe_smith import SweSmithReader

READERS: tuple[Reader, ...] = (
    AtifReader(),
    MiniSweAgent1Reader(),
    MiniSweAgent2Reader(),
    SweAgentReader(),
    OpenHandsReader(),
    NebiusOpenHandsReader(),
    NebiusSweAgentReader(),
    R2EGymReader(),
    AdpReader(),
    NemoGymPivotReader(),
    OpenAIResponsesReader(),
    SweGymReader(),
    SweSmithReader(),
    OpenAIChatReader(),
)
"""In the order they are asked: those that go by marks of their own before those that take any messages."""

_SHOWN_KEYS = 8
_SHOWN = 60
"""Characters shown of a name that a document gives itself."""


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
    keys = ", ".join(key[:_SHOWN] for key in list(document)[:_SHOWN_KEYS]) + (", …" if len(document) > _SHOWN_KEYS else "")
    return f"unknown format; top-level keys: {keys}" if document else "unknown format: an empty object"


def _known_format(document: Mapping[str, Any]) -> str | None:
    keys = set(document)
    history = document.get("history")
    first = history[0] if isinstance(history, list) and history else None
    if "schema_version" in keys and "steps" in keys:
        return f"ATIF of version {str(document['schema_version'])[:_SHOWN]!r} (1.0 to 1.8 are read)"
    if "trajectory_format" in keys:
        return str(document["trajectory_format"])[:_SHOWN]
    if isinstance(first, dict) and "role" in first:
        return "SWE-agent without tool calls (thought-action or XML)"
    if {"model_patch", "instance_id"} <= keys:
        return "SWE-bench predictions (patches without steps)"
    return None
