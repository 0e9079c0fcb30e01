"""What files of mini-swe-agent 1 and 2 have in common: everything but how turns are read from messages.

Invariant: of `info` nothing is lost: what has no field of its own goes into `extra`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, optional_seconds, texts_of, without


def messages_of(document: Mapping[str, Any]) -> list[Any]:
    """The messages, one at least. Raises DocumentError."""
    messages: list[Any] = expect(document.get("messages"), list, "messages")
    if not messages:
        raise DocumentError("messages: empty")
    return messages


def run_of(
    document: Mapping[str, Any], origin: Origin, turns: Sequence[Turn], *, format: str, scaffold: str, known: Sequence[str] = ()
) -> Trajectory:
    """The trajectory of these turns; `known` names what else of the document needs no keeping. Raises DocumentError."""
    info = mapping_of(document, "info")
    config = mapping_of(info, "config", "info.")
    model = mapping_of(config, "model", "info.config.")
    environment = mapping_of(config, "environment", "info.config.")
    return Trajectory(
        id=origin.name,
        task_id=optional(document.get("instance_id"), str, "instance_id") or origin.name,
        scaffold=scaffold,
        format=format,
        turns=tuple(turns),
        model=optional(model.get("model_name"), str, "info.config.model.model_name"),
        exit_status=optional(info.get("exit_status"), str, "info.exit_status"),
        submission=optional(info.get("submission"), str, "info.submission"),
        environment=texts_of(mapping_of(environment, "env", "info.config.environment.")),
        timeout_seconds=optional_seconds(environment.get("timeout"), "info.config.environment.timeout"),
        extra={
            "info": without(info, ("exit_status", "submission")),
            **without(document, ("info", "messages", "instance_id", *known)),
        },
    )
