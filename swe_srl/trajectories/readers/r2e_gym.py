"""Reads R2E-Gym trajectories: `problem_statement` and `trajectory_steps[{thought, action, observation, …}]`.

Invariant: an action is the `<function=…>` call in `action`; its thought is in `thought`. The prompt's template is not in the
file: the first message is the problem statement. Built from R2E-Gym's public schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.scaffolds.base import Observation
from swe_srl.trajectories.actions import parse_xml
from swe_srl.trajectories.chat import present
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import Origin, expect, mapping_of, optional, resolved_of, without

_USED = ("trajectory_steps", "problem_statement", "reward", "exit_reason", "output_patch")


class R2EGymReader:
    """R2E-Gym runs."""

    name: str = "r2e-gym"

    def detect(self, head: object) -> bool:
        """True for an array of trajectory steps."""
        return isinstance(head, dict) and isinstance(head.get("trajectory_steps"), list)

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        steps = expect(document.get("trajectory_steps"), list, "trajectory_steps")
        problem = optional(document.get("problem_statement"), str, "problem_statement")
        data, agent = mapping_of(document, "ds"), mapping_of(document, "agent_args")
        image = optional(document.get("docker_image"), str, "docker_image")
        names = (data.get("instance_id"), image, origin.name)
        model = agent.get("llm_name")
        reward = document.get("reward")
        return Trajectory(
            id=origin.name,
            task_id=next(name for name in names if isinstance(name, str) and name),
            scaffold=self.name,
            format=self.name,
            turns=(
                *([] if problem is None else [Turn("user", problem)]),
                *(
                    _turn(expect(step, dict, f"trajectory_steps[{i}]"), f"trajectory_steps[{i}].")
                    for i, step in enumerate(steps)
                ),
            ),
            model=model if isinstance(model, str) else None,
            resolved=resolved_of(reward, "reward") if reward in (None, 0, 1) else False,
            exit_status=optional(document.get("exit_reason"), str, "exit_reason"),
            submission=optional(document.get("output_patch"), str, "output_patch"),
            extra={**without(document, _USED), **({"reward": reward} if reward not in (None, 0, 1) else {})},
        )


def _turn(step: Mapping[str, Any], where: str) -> Turn:
    written = optional(step.get("action"), str, f"{where}action") or ""
    thought = optional(step.get("thought"), str, f"{where}thought") or ""
    observed = optional(step.get("observation"), str, f"{where}observation")
    return Turn(
        "agent",
        f"{thought}\n{written}" if thought and written else thought or written,
        thought,
        parse_xml(written).action,
        None if observed is None else Observation(observed),
        extra=present(without(step, ("action", "thought", "observation"))),
    )
