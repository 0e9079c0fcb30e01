"""Many trajectories: replayed by the jobs of a cluster, and what came of all of them.

Invariant: one trajectory's failure holds up no other, and one whose sandbox was lost is begun again; the steps before are kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from swe_srl.cache import cache_folder
from swe_srl.cluster.base import Cluster, Job
from swe_srl.cluster.local import LocalCluster
from swe_srl.environments.docker import wait_for_daemon
from swe_srl.environments.fidelity import TrajectoryReplay, overall
from swe_srl.environments.replay import replay_trajectory
from swe_srl.environments.sandbox import Limits, SandboxUnavailable
from swe_srl.environments.snapshots import Keep, SnapshotMap
from swe_srl.environments.task import Task
from swe_srl.environments.working import SandboxWork, needs_of
from swe_srl.errors import UserError
from swe_srl.trajectories.model import Trajectory


@dataclass(frozen=True, slots=True)
class Replayed:
    """A trajectory's replay, and the states that another machine keeps of it."""

    replay: TrajectoryReplay
    kept: Sequence[tuple[int, str]] = ()
    """Step and image; empty where this machine has them."""


@dataclass(slots=True)
class ReplayReport:
    """What was asked for: trajectories that were replayed, and why others were not."""

    trajectories: list[TrajectoryReplay] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    """id and reason of each trajectory that could not be replayed to its end."""
    marked: dict[str, int] | None = None
    """By trajectory, how many of its steps come after a divergence; None where nothing was required."""

    def add(self, replay: TrajectoryReplay) -> None:
        """Count a trajectory in, also under `failed` where it did not reach its end."""
        self.trajectories.append(replay)
        self.trajectories.sort(key=lambda replay: replay.id)
        if replay.error:
            self.failed.append({"id": replay.id, "reason": replay.error})

    def to_json(self) -> dict[str, Any]:
        """What `swe-srl replay --json` prints."""
        rows, total = [replay.summary() for replay in self.trajectories], overall(self.trajectories)
        if self.marked is not None:
            rows = [{**row, "marked": self.marked[row["id"]]} for row in rows]
            total["marked"] = sum(row["marked"] for row in rows)
        return {"trajectories": rows, "failed": self.failed, "overall": total}

    def differences(self) -> Iterator[dict[str, Any]]:
        """Each step whose observation differs after normalisation, with both texts."""
        for replay in self.trajectories:
            for step in replay.steps:
                if not step.exact:
                    yield {"id": replay.id, **dataclasses.asdict(step)}


@dataclass
class ReplayWork(SandboxWork):
    """Replays a trajectory from the image of its task."""

    images: Mapping[str, str]
    """task id → image."""
    tasks: Mapping[str, Task]
    """task id → task; all of them are needed where images have to be built or fetched."""
    grade: bool = True
    """Run the tasks' tests after the last step."""
    fresh_tests: bool = False
    """Run them in a new sandbox with the final patch, and not in the one of the replay."""
    limits: Limits | None = None
    retries: int = 1
    """How often a trajectory whose sandbox was lost is begun again."""
    keep: Keep = "none"
    snapshots: SnapshotMap | None = None
    """Of this machine; elsewhere states are noted there, and told with the result."""
    run: str = ""
    """What names the run elsewhere: a trajectory's states take the place of those that the same run kept before."""

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"snapshots": None}

    def __call__(self, trajectory: Trajectory, tick: Callable[[], None]) -> Replayed:
        image, task = self.images[trajectory.task_id], self.tasks.get(trajectory.task_id)
        snapshots, client = self.snapshots, self.daemon()
        if task is not None:
            try:
                self.have(image, task)
            except UserError as error:
                lost = isinstance(error, SandboxUnavailable)
                return Replayed(TrajectoryReplay(trajectory.id, trajectory.task_id, (), 0.0, None, str(error), lost))
        if self.client is None and self.keep != "none":
            snapshots = SnapshotMap(client, _node_folder(self.run, trajectory), self.keep)
        replay = self._replay(client, image, trajectory, tick, snapshots, task if self.grade else None)
        kept = () if snapshots is None or self.client is not None else snapshots.rows(trajectory.id)
        return Replayed(replay, kept)

    def _replay(
        self,
        client: docker.DockerClient,
        image: str,
        trajectory: Trajectory,
        tick: Callable[[], None],
        snapshots: SnapshotMap | None,
        task: Task | None,
    ) -> TrajectoryReplay:
        reached = _Furthest(tick)
        best = replay_trajectory(client, image, trajectory, self.limits, reached.step, snapshots, task, self.fresh_tests)
        attempts = 1
        while best.lost and attempts <= self.retries and wait_for_daemon(client, self.stopping):
            attempts += 1
            reached.restart()
            latest = replay_trajectory(client, image, trajectory, self.limits, reached.step, snapshots, task, self.fresh_tests)
            more = latest.error is None or len(latest.steps) >= len(best.steps)
            best = latest if more else dataclasses.replace(best, error=latest.error, lost=latest.lost)
        if best.error and attempts > 1:
            best = dataclasses.replace(best, error=f"{best.error} (tried {attempts} times)")
        return dataclasses.replace(best, attempts=attempts)


def replay_all(
    work: ReplayWork,
    trajectories: Sequence[Trajectory],
    cluster: Cluster | None = None,
    *,
    on_step: Callable[[], None] = lambda: None,
    on_done: Callable[[Trajectory, TrajectoryReplay], None] = lambda *_: None,
) -> ReplayReport:
    """Replay trajectories, two at a time where no cluster is given. Leaves no container behind, even on Ctrl-C.

    on_step: called once for each step that has been executed, however often it was.
    on_done: called in this thread as each trajectory ends.
    """
    report = ReplayReport()
    needs = needs_of(work.limits or Limits())
    jobs = (Job(trajectory.id, trajectory, work.images[trajectory.task_id]) for trajectory in trajectories)
    with closing((cluster or LocalCluster(2)).run(work, jobs, needs, on_step)) as ends:
        for done in ends:
            trajectory = done.job.payload
            if done.result is None:
                replay = TrajectoryReplay(trajectory.id, trajectory.task_id, (), 0.0, None, error=done.error, lost=True)
            else:
                replay = done.result.replay
                if work.snapshots is not None and done.result.kept:
                    work.snapshots.adopt(trajectory.id, done.result.kept, done.node)
            report.add(replay)
            on_done(trajectory, replay)
    return report


def _node_folder(run: str, trajectory: Trajectory) -> Path:
    """Where a node notes the states that it keeps of a trajectory for a run."""
    return cache_folder("snapshots") / hashlib.sha256(f"{run}\0{trajectory.id}".encode()).hexdigest()[:24]


class _Furthest:
    """Passes on each step once, though a trajectory may be begun again."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step
        self._at = self._furthest = 0

    def step(self) -> None:
        self._at += 1
        if self._at > self._furthest:
            self._furthest = self._at
            self._on_step()

    def restart(self) -> None:
        self._at = 0
