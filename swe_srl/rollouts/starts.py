"""Where a rollout begins: at the issue, or at an expert's step with the expert's turns before it as context.

Invariant: the state a rollout begins in is the one its context tells of. An expert's turns are context only: they are never a
target, and never counted as the policy's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from swe_srl.environments.fidelity import compare
from swe_srl.environments.replay import move_repository, run_action
from swe_srl.environments.sandbox import Sandbox
from swe_srl.environments.snapshots import find_snapshot
from swe_srl.environments.task import Task
from swe_srl.errors import UserError
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.model import Step, Trajectory, Turn


@dataclass(frozen=True, slots=True)
class StartRule:
    """Which state to begin in."""

    kind: Literal["issue", "step", "last"]
    """The issue; before the expert's step `n`; so that the expert took `n` more steps from there."""
    n: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "issue" else f"{self.kind}:{self.n}"


@dataclass(frozen=True, slots=True)
class Start:
    """One state to begin in."""

    trajectory: Trajectory
    """Its id names the start; its turns are what the policy is shown first."""
    image: str | None = None
    """A snapshot that holds the state; None for the task's own image."""
    prefix: tuple[Step, ...] = ()
    """The expert's steps to execute in the task's image first, where there is no snapshot."""
    expert: tuple[str, int] | None = None
    """The expert's trajectory and k; None at the issue."""
    led: tuple[Step, ...] = ()
    """The expert's steps from the issue on at which the policy is asked, too, before it goes on alone (see `OwnHistory`)."""
    files: tuple[str, ...] = ()
    """Files that the policy is told to edit."""

    def prepare(self, sandbox: Sandbox) -> int | None:
        """Bring a new sandbox into the state. Returns how many of the prefix's steps were exact; None without a prefix."""
        if self.image is not None or self.expert is None:
            return None
        if self.trajectory.workdir:
            move_repository(sandbox, self.trajectory.workdir)
        scaffold, exact = get_scaffold(self.trajectory.scaffold), 0
        for step in self.prefix:
            replayed = run_action(sandbox, scaffold, step.action, step.trajectory)
            recorded = step.turn.observation
            exact += recorded is not None and compare(step.k, recorded, replayed, 0.0).exact
        return exact

    def to_json(self, exact: int | None = None) -> dict[str, Any]:
        """What a rollout's record says of it."""
        if self.expert is None:
            return {"from": "issue", **({"files": list(self.files)} if self.files else {})}
        return {"from": "expert", "trajectory": self.expert[0], "k": self.expert[1], "exact": exact}


def parse_start(text: str) -> StartRule:
    """Read `issue`, `step:K` or `last:N`. Raises UserError for anything else."""
    if text == "issue":
        return StartRule("issue")
    if match := re.fullmatch(r"step:(\d+)", text):
        return StartRule("step", int(match[1]))
    if (match := re.fullmatch(r"last:(\d+)", text)) and int(match[1]) > 0:
        return StartRule("last", int(match[1]))
    raise UserError(f"--start {text}: expected issue, step:K (from 0) or last:N (from 1)")


def starts(
    rule: StartRule,
    tasks: Mapping[str, Task],
    experts: Sequence[Trajectory],
    scaffold: str | None,
    snapshots: Path | None,
    *,
    led: bool = False,
) -> tuple[list[Start], list[dict[str, str]]]:
    """Every state to begin in, one a task at the issue, one an expert otherwise; and the id and reason of those left out.

    scaffold: None takes the expert's, or swe-agent at the issue. Raises UserError where an expert has another.
    snapshots: the run folder of a replay that kept the experts' states; None executes their steps again.
    led: begin at the issue, and let the policy be led to the expert's step.
    """
    if rule.kind == "issue":
        name = get_scaffold(scaffold or "swe-agent").name
        return [at_issue(task, name) for task in tasks.values()], []
    found, left_out = [], []
    for expert in experts:
        if expert.task_id not in tasks:
            continue
        if scaffold is not None and expert.scaffold != scaffold:
            raise UserError(
                f"--scaffold {scaffold}: {expert.id} was recorded with {expert.scaffold}, and what begins at its steps goes on "
                "with it"
            )
        get_scaffold(expert.scaffold)
        steps = list(expert.steps())
        k = rule.n if rule.kind == "step" else max(0, len(steps) - rule.n)
        if k >= len(steps):
            left_out.append({"id": expert.id, "reason": f"has {len(steps)} steps, so there is none to begin at with {rule}"})
            continue
        task = tasks[expert.task_id]
        found.append(_led_to(steps, k, task) if led else _at_step(steps[k], task, snapshots))
    without = sorted(tasks.keys() - {expert.task_id for expert in experts})
    left_out += [{"id": name, "reason": f"no expert trajectory of this task, which --start {rule} needs"} for name in without]
    return found, left_out


def at_issue(task: Task, scaffold: str) -> Start:
    """The start of a task whose turns are its issue alone."""
    turns = (Turn("user", task.problem_statement.strip()),)
    return Start(Trajectory(task.id, task.id, scaffold, "atif", turns, extra=_extra(task)))


def _at_step(step: Step, task: Task, snapshots: Path | None) -> Start:
    expert = step.trajectory
    context = tuple(replace(turn, context_only=True) if turn.role == "agent" else turn for turn in step.context)
    begun = replace(
        expert,
        id=step.id,
        format="atif",
        turns=context,
        resolved=None,
        exit_status=None,
        submission=None,
        extra=_extra(task),
    )
    image = None if snapshots is None else find_snapshot(snapshots, step.id)
    return Start(begun, image, tuple(expert.steps())[: step.k], (expert.id, step.k))


def _led_to(steps: Sequence[Step], k: int, task: Task) -> Start:
    first = _at_step(steps[0], task, None)
    named = replace(first.trajectory, id=steps[k].id)
    return replace(first, trajectory=named, expert=(steps[k].trajectory.id, k), led=tuple(steps[:k]))


def _extra(task: Task) -> dict[str, Any]:
    return {"repo": task.repo} if task.repo else {}
