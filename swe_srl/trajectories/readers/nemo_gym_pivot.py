"""Reads NeMo Gym's pivot rows: `responses_create_params.input` is the context, `expected_action` the one step to learn.

Invariant: a row is a trajectory of exactly one step; the agent's turns in its context are copied from the run the row was cut
from and are context only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, without
from swe_srl.trajectories.readers.openai_responses import read_items, scaffold_of


class NemoGymPivotReader:
    """NeMo Gym pivot rows."""

    name: str = "nemo-gym-pivot"

    def detect(self, head: object) -> bool:
        """True for an expected action beside the parameters of a response."""
        return isinstance(head, dict) and "expected_action" in head and isinstance(head.get("responses_create_params"), dict)

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        params = mapping_of(document, "responses_create_params")
        metadata = mapping_of(document, "metadata")
        expected = expect(document.get("expected_action"), dict, "expected_action")
        context = read_items(params.get("input"), "responses_create_params.input")
        target = read_items([expected], "expected_action")
        if not target or target[0].role != "agent":
            raise DocumentError("expected_action: neither a function call nor an answer")
        name = optional(document.get("uuid"), str, "uuid") or origin.name
        tasks = (metadata.get("instance_id"), document.get("instance_id"), name)
        return Trajectory(
            id=name,
            task_id=next(task for task in tasks if isinstance(task, str) and task),
            scaffold=scaffold_of(document, {}),
            format=self.name,
            turns=(*(replace(turn, context_only=turn.role == "agent") for turn in context), target[0]),
            extra={
                **without(document, ("responses_create_params", "expected_action", "uuid")),
                "responses_create_params": without(params, ("input",)),
            },
        )
