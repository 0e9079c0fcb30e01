"""Hand-made chat messages, and reading a document with the reader that takes it."""

from __future__ import annotations

import json
from typing import Any

from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import Origin
from swe_srl.trajectories.readers import find_reader


def call(name: str, arguments: object, call_id: str | None = "c1", **fields: Any) -> dict[str, Any]:
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        **({"id": call_id} if call_id else {}),
        "type": "function",
        **fields,
        "function": {"name": name, "arguments": written},
    }


def assistant(content: object, *calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **fields}


def tool(content: object, call_id: str | None = "c1", **fields: Any) -> dict[str, Any]:
    return {"role": "tool", "content": content, **({"tool_call_id": call_id} if call_id else {}), **fields}


def read(document: Any, reader: str) -> Trajectory:
    found = find_reader(document)
    assert found is not None
    assert found.name == reader
    return found.read(document, Origin("file"))


ASK = {"role": "user", "content": "Fix it."}
