"""Steps are views: what they take does not depend on what they see."""

from __future__ import annotations

import tracemalloc

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn


def run(observation: str, steps: int) -> Trajectory:
    action = Action((ToolCall("bash", {"command": "ls"}),))
    turns = [Turn("agent", "raw", "why", action, Observation(observation)) for _ in range(steps)]
    return Trajectory("t", "task", "mini-swe-agent", "test", (Turn("user", "The issue."), *turns))


def test_a_step_takes_the_same_few_bytes_whatever_comes_before_it() -> None:
    def opened(observation: str, steps: int) -> float:
        """Bytes a step."""
        trajectory = run(observation, steps)
        tracemalloc.start()
        held = list(trajectory.steps())
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken / len(held)

    assert opened("x", 100) < 200
    assert opened("x" * 10_000, 2000) < 200
