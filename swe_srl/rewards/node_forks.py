"""Effects found on the nodes of a cluster: some actions of one trajectory are a job.

Invariant: what a job does on its node is what `Forks` does here, one fork at a time. It forks the snapshots that its node
keeps, and executes the steps before where there are none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from swe_srl.cache import cache_folder
from swe_srl.cluster.base import Cluster, Job
from swe_srl.environments.base_image import has_image
from swe_srl.environments.sandbox import Limits
from swe_srl.environments.shell import first_line
from swe_srl.environments.shipping import Shipping
from swe_srl.environments.snapshots import find_homes
from swe_srl.environments.task import Task
from swe_srl.environments.working import SandboxWork, needs_of
from swe_srl.errors import UserError
from swe_srl.rewards.forks import EffectCache, Executed, Fault, Forks
from swe_srl.rewards.states import States
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step

_NEEDS = needs_of(Limits())
_ACTIONS_A_JOB = 32
"""The steps before are executed once a job: few enough that several nodes share a trajectory's actions."""


@dataclass(frozen=True, slots=True)
class Actions:
    """Actions of one trajectory."""

    missing: Mapping[str, tuple[Step, Action]]
    """By key."""
    snapshots: Mapping[int, str]
    """Step → image, for those that a replay kept."""
    seconds: float | None
    """What is left for all of them; None: no limit."""


@dataclass
class EffectWork(SandboxWork):
    """Finds what actions do."""

    images: Mapping[str, str]
    """task id → image."""
    tasks: Mapping[str, Task]
    timeout_seconds: float

    def __call__(self, asked: Actions, tick: Callable[[], None]) -> list[Executed]:
        """See `Forks.execute`."""
        client = self.daemon()
        deadline = None if asked.seconds is None else time.monotonic() + asked.seconds
        run = next(iter(asked.missing.values()))[0].trajectory
        try:
            kept = {run.id: {k: image for k, image in asked.snapshots.items() if has_image(client, image)}}
            states, cache = States(client, kept=kept, image_of=self._image), EffectCache(cache_folder("effects"))
            forks = Forks(client, states, cache, workers=1, timeout_seconds=self.timeout_seconds)
            with closing(forks.execute(asked.missing, deadline)) as executed:
                return list(executed)
        except UserError as error:
            return [(key, Fault(first_line(error)), 0.0) for key in asked.missing]

    def _image(self, task: str) -> str | None:
        if task not in self.images:
            return None
        self.have(self.images[task], self.tasks[task])
        return self.images[task]


@dataclass(frozen=True, slots=True)
class OnNodes:
    """Executes actions on the nodes of a cluster: an `Executor`."""

    cluster: Cluster
    states: States
    """Of this machine, which knows the tasks' images and has sent them."""
    tasks: Mapping[str, Task]
    shipping: Shipping
    timeout_seconds: float
    """Of one action."""

    def __call__(self, missing: Mapping[str, tuple[Step, Action]], deadline: float | None) -> Generator[Executed, None, None]:
        """Jobs are given out as there is room for them, and none after the deadline."""
        names = {step.trajectory.task_id for step, _ in missing.values()}
        images = {name: image for name in names if (image := self.states.task_image(name)) is not None}
        work = EffectWork(images, self.tasks, self.timeout_seconds, shipping=self.shipping)
        left = set(missing)
        with closing(self.cluster.run(work, self._jobs(missing, images, deadline), _NEEDS)) as ends:
            for done in ends:
                lost = [(key, Fault(done.error or "nothing came of it"), 0.0) for key in done.job.payload.missing]
                for executed in lost if done.result is None else done.result:
                    left.discard(executed[0])
                    yield executed
        yield from ((key, Fault("the time limit was reached"), 0.0) for key in missing if key in left)

    def _jobs(
        self, missing: Mapping[str, tuple[Step, Action]], images: Mapping[str, str], deadline: float | None
    ) -> Iterator[Job[Actions]]:
        snapshots = {step.id: image for step, _ in missing.values() if (image := self.states.snapshot(step)) is not None}
        homes = find_homes(self.cluster, set(snapshots.values()), _NEEDS)
        groups: dict[tuple[int, str | None], list[str]] = {}
        for key, (step, _) in missing.items():
            groups.setdefault((id(step.trajectory), homes.get(snapshots.get(step.id, ""))), []).append(key)
        for (_, home), keys in groups.items():
            for first in range(0, len(keys), _ACTIONS_A_JOB):
                some = {key: missing[key] for key in keys[first : first + _ACTIONS_A_JOB]}
                steps = {step.k: step for step, _ in some.values()}
                run = next(iter(steps.values())).trajectory
                seconds = None if deadline is None else deadline - time.monotonic()
                if seconds is not None and seconds <= 0:
                    return
                kept = {k: snapshots[step.id] for k, step in steps.items() if step.id in snapshots}
                yield Job(f"actions of {run.id}", Actions(some, kept, seconds), images.get(run.task_id), home)
