"""Re-execute a trajectory in a container and compare every observation with the recorded one.

Invariant: the comparison is stated, never loosened: raw texts, texts after the named rules of `normalise`, and texts whose
lines are sorted besides are three counts. What could not be executed is a failure with its reason, not a mismatch.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from typing import Any

import docker
from cydifflib import SequenceMatcher

from swe_srl.environments.docker import DockerSandbox, pool_of_containers
from swe_srl.environments.normalise import normalise, unordered
from swe_srl.environments.sandbox import Limits, Sandbox, SandboxLost
from swe_srl.environments.snapshots import SnapshotMap
from swe_srl.errors import UserError
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action, CommandResult, Observation, Scaffold, ToolCall
from swe_srl.trajectories.model import Trajectory


@dataclass(frozen=True, slots=True)
class StepReplay:
    """One action executed again, beside its recording."""

    k: int
    exact_raw: bool
    """The texts are equal as they are."""
    exact: bool
    """They are equal after normalisation."""
    exact_unordered: bool
    """They are equal after normalisation and sorting of lines."""
    similarity_raw: float
    similarity: float
    """2M/T of the normalised texts, in [0, 1]."""
    returncode: int | None
    recorded_returncode: int | None
    seconds: float
    recorded: str | None = None
    """The two texts, kept where they differ after normalisation."""
    replayed: str | None = None


@dataclass(frozen=True, slots=True)
class TrajectoryReplay:
    """All steps of one trajectory."""

    id: str
    task_id: str
    steps: tuple[StepReplay, ...]
    seconds: float
    submission_equal: bool | None
    """The final patch equals the recorded one; None where either is missing."""
    error: str | None = None
    """Why the replay stopped early."""

    def summary(self) -> dict[str, Any]:
        """Counts over the steps, as `swe-srl replay --json` prints them."""
        compared = [step for step in self.steps if step.recorded_returncode is not None]
        return {
            "id": self.id,
            "task": self.task_id,
            "steps": len(self.steps),
            "exact": sum(step.exact for step in self.steps),
            "exact_raw": sum(step.exact_raw for step in self.steps),
            "exact_unordered": sum(step.exact_unordered for step in self.steps),
            "return_codes_matched": sum(step.returncode == step.recorded_returncode for step in compared),
            "return_codes_compared": len(compared),
            "mean_similarity": _mean([step.similarity for step in self.steps]),
            "mean_similarity_raw": _mean([step.similarity_raw for step in self.steps]),
            "first_difference": next((step.k for step in self.steps if not step.exact), None),
            "submission_equal": self.submission_equal,
            "seconds": round(self.seconds, 2),
            "error": self.error,
        }


# The repository goes to where the recorded run had it; a link stays, for what was installed from the old place.
_MOVE = 'here=$(pwd); [ -e {to} ] || {{ mkdir -p "$(dirname {to})" && mv "$here" {to} && ln -s {to} "$here"; }}'


def move_repository(sandbox: Sandbox, workdir: str) -> None:
    """Move the task's repository to another directory, unless something is there. Raises SandboxLost where it cannot be moved."""
    result = sandbox.execute(_MOVE.format(to=shlex.quote(workdir)), timeout=600)
    if result.returncode != 0:
        raise SandboxLost(f"the repository could not be moved to {workdir}: {result.output.strip()}")


def run_action(sandbox: Sandbox, scaffold: Scaffold, action: Action, trajectory: Trajectory | None = None) -> Observation:
    """Execute one action as its scaffold would and return what the agent would see.

    trajectory: its recorded environment and time-out apply, where it has some.
    """
    environment: Mapping[str, str] = {**scaffold.environment, **(trajectory.environment if trajectory else {})}
    timeout = (trajectory.timeout_seconds if trajectory else None) or scaffold.timeout_seconds
    seen = []
    for call in action.calls:
        try:
            command = scaffold.command(call)
        except ValueError as error:
            seen.append(_refused(scaffold, call, str(error)))
            continue
        result = sandbox.execute(command, timeout=timeout, env=environment, session=scaffold.persistent_shell)
        seen.append(scaffold.observe(call, result))
    if len(seen) == 1:
        return seen[0]
    texts = [observation.compared for observation in seen]
    return Observation(
        "\n".join(observation.text for observation in seen), "\n".join(texts), seen[-1].returncode if seen else None
    )


def _refused(scaffold: Scaffold, call: ToolCall, reason: str) -> Observation:
    try:
        return scaffold.observe(call, CommandResult(reason, 1))
    except ValueError:  # an interface need not have a form of answer for a tool that it does not have
        return Observation(reason, reason, 1)


def compare(k: int, recorded: Observation, replayed: Observation, seconds: float) -> StepReplay:
    """One recorded observation against its replay."""
    raw = (recorded.compared, replayed.compared)
    clean = (normalise(raw[0]), normalise(raw[1]))
    exact = clean[0] == clean[1]
    return StepReplay(
        k=k,
        exact_raw=raw[0] == raw[1],
        exact=exact,
        exact_unordered=exact or unordered(clean[0]) == unordered(clean[1]),
        similarity_raw=_similarity(*raw),
        similarity=_similarity(*clean),
        returncode=replayed.returncode,
        recorded_returncode=recorded.returncode,
        seconds=seconds,
        recorded=None if exact else raw[0],
        replayed=None if exact else raw[1],
    )


def replay_trajectory(
    client: docker.DockerClient,
    image: str,
    trajectory: Trajectory,
    limits: Limits | None = None,
    on_step: Callable[[], None] = lambda: None,
    snapshots: SnapshotMap | None = None,
) -> TrajectoryReplay:
    """Run every step of a trajectory in a fresh sandbox of `image`.

    snapshots: where the state before each step, and the one after the last, is kept.
    A sandbox that is lost on the way ends the replay with `error` set; the steps before it are kept.
    """
    started = time.monotonic()
    steps: list[StepReplay] = []
    error: str | None = None
    submission: str | None = None
    try:
        scaffold = get_scaffold(trajectory.scaffold)
        with DockerSandbox.start(client, image, limits) as sandbox:
            if trajectory.workdir:
                move_repository(sandbox, trajectory.workdir)
            k = 0
            for k, step in enumerate(trajectory.steps(), start=1):
                if snapshots:
                    snapshots.keep(sandbox, trajectory.id, step.k)
                begun = time.monotonic()
                replayed = run_action(sandbox, scaffold, step.action, trajectory)
                recorded = step.turn.observation
                if recorded is not None:
                    steps.append(compare(step.k, recorded, replayed, time.monotonic() - begun))
                if any(scaffold.is_submit(call) for call in step.action.calls):
                    submission = replayed.compared
                on_step()
            if snapshots:
                snapshots.keep(sandbox, trajectory.id, k)
    except (SandboxLost, UserError) as failure:
        error = str(failure)
    equal = None
    if submission is not None and trajectory.submission is not None:
        equal = normalise(submission) == normalise(trajectory.submission)
    return TrajectoryReplay(trajectory.id, trajectory.task_id, tuple(steps), time.monotonic() - started, equal, error)


@dataclass(slots=True)
class ReplayReport:
    """What was asked for: trajectories that were replayed, and why others were not."""

    trajectories: list[TrajectoryReplay] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    """id and reason of each trajectory that could not be replayed to its end."""

    def to_json(self) -> dict[str, Any]:
        """What `swe-srl replay --json` prints."""
        return {"trajectories": [replay.summary() for replay in self.trajectories], "failed": self.failed}

    def differences(self) -> Iterator[dict[str, Any]]:
        """Each step whose observation differs after normalisation, with both texts."""
        for replay in self.trajectories:
            for step in replay.steps:
                if not step.exact:
                    yield {"id": replay.id, **dataclasses.asdict(step)}


def replay_all(
    client: docker.DockerClient,
    images: Mapping[str, str],
    trajectories: Sequence[Trajectory],
    *,
    workers: int = 2,
    on_step: Callable[[], None] = lambda: None,
    on_done: Callable[[TrajectoryReplay], None] = lambda _: None,
    snapshots: SnapshotMap | None = None,
) -> ReplayReport:
    """Replay trajectories over a pool of sandboxes. images: task id → image. Leaves no container behind, even on Ctrl-C."""
    report = ReplayReport()
    with pool_of_containers(client, workers) as pool:
        futures = [
            pool.submit(replay_trajectory, client, images[trajectory.task_id], trajectory, None, on_step, snapshots)
            for trajectory in trajectories
        ]
        for future in as_completed(futures):
            replay = future.result()
            report.trajectories.append(replay)
            if replay.error:
                report.failed.append({"id": replay.id, "reason": replay.error})
            on_done(replay)
    report.trajectories.sort(key=lambda replay: replay.id)
    return report


def _similarity(a: str, b: str) -> float:
    return 1.0 if a == b else float(SequenceMatcher(None, a, b, autojunk=False).ratio())


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 0.0
