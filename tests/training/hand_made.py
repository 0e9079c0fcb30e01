"""Trajectories written by hand."""

from __future__ import annotations

from collections.abc import Sequence

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn


def trajectory(
    id: str,
    task_id: str,
    commands: Sequence[str | tuple[str, str] | Action] = ("ls", "pwd"),
    *,
    problem: str = "Fix it.",
    resolved: bool | None = True,
) -> Trajectory:
    """One run of the bash tool; a command may come with its thought, or be a whole action."""
    turns = [Turn("user", problem)]
    for item in commands:
        thought, command = item if isinstance(item, tuple) else ("thought", item)
        action = command if isinstance(command, Action) else Action((ToolCall("bash", {"command": command}),))
        turns.append(Turn("agent", "as written", thought, action, Observation("done")))
    return Trajectory(id, task_id, "mini-swe-agent", "test", tuple(turns), resolved=resolved)
