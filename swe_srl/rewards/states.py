"""The state before a step, as an image to fork: one that a replay kept, or one made by executing the steps before it again.

Invariant: a key names the state and nothing else; equal keys are equal states, in this run and in any other.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

import docker

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.replay import move_repository, run_action
from swe_srl.environments.sandbox import Limits, SandboxLost
from swe_srl.environments.shell import first_line
from swe_srl.environments.snapshots import FILE, read_map
from swe_srl.errors import UserError
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.model import Step, Trajectory


class States:
    """Knows the state before each step."""

    def __init__(
        self,
        client: docker.DockerClient,
        *,
        replay: Path | None = None,
        kept: Mapping[str, Mapping[int, str]] | None = None,
        image_of: Callable[[str], str | None] = lambda task: None,
        limits: Limits | None = None,
    ) -> None:
        """Args:
            replay: run folder of a replay whose snapshots are taken where there are some.
            kept: such snapshots themselves, by trajectory and step.
            image_of: a task's image by the task's id, from which the steps before are executed again elsewhere; None for an
                unknown task. It may raise UserError.

        Raises UserError where the folder has no snapshots, or they are gone.
        """
        self._client, self._limits = client, limits
        self._image_of = image_of
        self._images: dict[str, str | None] = {}
        self._failed: dict[str, str] = {}
        self._kept: Mapping[str, Mapping[int, str]] = kept or {}
        self._made: dict[str, str] = {}
        if replay is not None:
            if not (replay / FILE).is_file():
                raise UserError(
                    f"{replay}: holds no snapshots; make them with `swe-srl replay … --out {replay} --snapshot changed`"
                )
            self._kept = read_map(replay / FILE)

    def key(self, step: Step) -> str:
        """What names the state."""
        if (image := self.snapshot(step)) is not None:
            return image
        run = step.trajectory
        before = [[(call.name, dict(call.arguments)) for call in s.action.calls] for s in run.steps() if s.k < step.k]
        decided = [self.task_image(run.task_id), run.scaffold, dict(run.environment), run.timeout_seconds, run.workdir, before]
        return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()[:24]

    def image(self, step: Step) -> str:
        """The image that holds the state. Call `prepare` before."""
        kept = self.snapshot(step)
        return kept if kept is not None else self._made[self.key(step)]

    def prepare(self, steps: Sequence[Step], pool: Executor, deadline: float | None = None) -> dict[str, str]:
        """Make the states that are missing, trajectory by trajectory, each executed once.

        deadline: of the monotonic clock; no trajectory is begun and no step executed after it.
        Returns: key → why the state cannot be had, for those that cannot.
        """
        missing: dict[int, list[Step]] = {}
        for step in steps:
            if self.snapshot(step) is None and self.key(step) not in self._made:
                missing.setdefault(id(step.trajectory), []).append(step)
        lost: dict[str, str] = {}
        for found in pool.map(lambda wanted: self._execute(wanted, deadline), missing.values()):
            lost |= found
        return lost

    def snapshot(self, step: Step) -> str | None:
        """The snapshot that a replay kept of the state; None where it kept none."""
        return self._kept.get(step.trajectory.id, {}).get(step.k)

    def task_image(self, task: str) -> str | None:
        """The image of a task; None where there is none."""
        if task not in self._images:
            try:
                self._images[task] = self._image_of(task)
            except UserError as error:
                self._images[task], self._failed[task] = None, first_line(error)
        return self._images[task]

    def _execute(self, wanted: Sequence[Step], deadline: float | None) -> dict[str, str]:
        run, keys = wanted[0].trajectory, {step.k: self.key(step) for step in wanted}
        image = self.task_image(run.task_id)
        if image is None:
            reason = self._failed.get(run.task_id, f"no snapshot of {run.id}, and no task {run.task_id}")
            return dict.fromkeys(keys.values(), reason)
        try:
            return self._snapshots(run, image, keys, deadline)
        except (SandboxLost, UserError, OSError) as error:
            reason = f"the steps before could not be executed: {first_line(error)}"
            return {key: reason for key in keys.values() if key not in self._made}

    def _snapshots(self, run: Trajectory, image: str, keys: Mapping[int, str], deadline: float | None) -> dict[str, str]:
        scaffold = get_scaffold(run.scaffold)
        with DockerSandbox.start(self._client, image, self._limits) as sandbox:
            if run.workdir:
                move_repository(sandbox, run.workdir)
            for step in _until(run.steps(), max(keys)):
                if deadline is not None and time.monotonic() > deadline:
                    return {key: "the time limit was reached" for key in keys.values() if key not in self._made}
                if step.k in keys:
                    self._made[keys[step.k]] = sandbox.snapshot().image
                if step.k < max(keys):
                    run_action(sandbox, scaffold, step.action, run)
        return {}


def _until(steps: Iterable[Step], last: int) -> Iterable[Step]:
    return (step for step in steps if step.k <= last)
