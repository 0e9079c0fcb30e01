"""Many rollouts at once: the jobs of a cluster, one policy, and a folder that keeps each as it ends.

Invariant: at most `workers` rollouts are live here, each with one sandbox; whoever waits for the sampler holds no more than it.
What the infrastructure ended is unfinished, never graded and never counted against the policy; the others go on. A rollout is
judged by its final patch alone, in a sandbox that its policy was never in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import docker

from swe_srl.cluster import base
from swe_srl.cluster.local import LocalCluster
from swe_srl.environments.base_image import has_image
from swe_srl.environments.docker import DockerSandbox, check_runtime, wait_for_daemon
from swe_srl.environments.fidelity import Tested
from swe_srl.environments.grading import can_grade
from swe_srl.environments.hidden_tests import with_hidden_tests
from swe_srl.environments.image import build_images
from swe_srl.environments.judging import RERUNS, judge
from swe_srl.environments.patch import PatchError, final_patch
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.sandbox import Limits, Sandbox, SandboxLost, SandboxUnavailable
from swe_srl.environments.shell import first_line
from swe_srl.environments.shipping import Shipping, send_image
from swe_srl.environments.snapshots import find_homes
from swe_srl.environments.task import Task
from swe_srl.environments.working import SandboxWork, needs_of
from swe_srl.errors import UserError
from swe_srl.rollouts.agent import FAULTS, Acted, AgentConfig, Destroyed, Policy, roll_out
from swe_srl.rollouts.edit_agent import EditConfig, Writer
from swe_srl.rollouts.folder import RolloutFolder, digest
from swe_srl.rollouts.guards import flags
from swe_srl.rollouts.own_history import OwnHistory
from swe_srl.rollouts.record import RolloutRecord, summary, with_record, without_tokens
from swe_srl.rollouts.starts import Start
from swe_srl.terminal import progress as progress_bars
from swe_srl.trajectories.model import Trajectory

LIMITS = Limits(output_bytes=1024**2)
"""Of a sandbox: a policy's observations are kept whole in its rollout, so that the cap on output is lower than a replay's."""


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """How rollouts are made."""

    agent: AgentConfig | EditConfig
    attempts: int = 1
    """Rollouts from each start."""
    workers: int = 4
    """Rollouts that are live at a time on this machine, and images that are built."""
    retries: int = 1
    """How often one whose sandbox was lost is begun again."""
    limits: Limits = LIMITS
    overwrite: bool = False
    reruns: int = RERUNS
    """How often tests run again that did not pass."""
    cluster: str = "local"
    """Where: see `open_cluster`."""
    shipping: Shipping = field(default_factory=Shipping)
    """How the nodes of a cluster come to have images."""


Act = Callable[[Any, Sandbox, Start, Any, Callable[[], None]], Acted]
"""Makes a rollout of a policy, a sandbox in the start's state, the start, and `RolloutOptions.agent`; calls the last at each
answer."""


def act_alone(policy: Policy, sandbox: Sandbox, start: Start, config: AgentConfig, on_answer: Callable[[], None]) -> Acted:
    """The agent loop."""
    return roll_out(policy, sandbox, start.trajectory, config, on_answer)


def act_led(
    policy: Policy, sandbox: Sandbox, start: Start, config: AgentConfig, on_answer: Callable[[], None], *, least: float
) -> Acted:
    """The agent loop, led past the expert's first steps; `least` is the threshold of `OwnHistory`."""
    return roll_out(OwnHistory(policy, start.led, least), sandbox, start.trajectory, config, on_answer)


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout to make."""

    id: str
    task: Task
    start: Start
    attempt: int
    image: str
    key: str

    def unfinished(self, policy: str, error: str) -> Trajectory:
        """The rollout where nothing came of it."""
        nothing = replace(self.start.trajectory, id=self.id, exit_status="sandbox_fault", model=policy)
        return with_record(nothing, RolloutRecord(self.key, self.attempt, self.start.to_json(), error=error))


@dataclass
class RolloutWork(SandboxWork):
    """Makes a rollout with its outcome, and says what failed, if anything."""

    policy: Policy | Writer
    options: RolloutOptions
    act: Act = act_alone

    def __call__(self, job: Job, tick: Callable[[], None]) -> tuple[Trajectory, str | None]:
        """`tick` is called at each answer."""
        return self.make(job, self.policy, tick)

    def make(
        self, job: Job, policy: Policy | Writer, tick: Callable[[], None], on_acted: Callable[[], None] = lambda: None
    ) -> tuple[Trajectory, str | None]:
        """The rollout of a policy; `on_acted` is called when it has acted, before its work is tested."""
        client = self.daemon()
        try:
            self.have(job.image, job.task)
        except UserError as error:
            return job.unfinished(policy.name, str(error)), str(error)
        return make_rollout(client, job, policy, self.options, self.stopping, self.act, tick, on_acted)

    def made(self, done: base.Done[Job, tuple[Trajectory, str | None]]) -> tuple[Trajectory, str | None]:
        """What came of a job, where its nodes were lost too."""
        if done.result is not None:
            return done.result
        reason = done.error or "nothing came of it"
        return done.job.payload.unfinished(self.policy.name, reason), reason

    def abort(self) -> None:
        """See `Work.abort`."""
        self.stopping.set()
        self.policy.close()
        super().abort()


@dataclass(slots=True)
class RolloutReport:
    """What came of what was asked for."""

    rollouts: list[Trajectory] = field(default_factory=list)
    """Those that ended by themselves, by id, without their tokens: the folder has them."""
    failed: list[dict[str, str]] = field(default_factory=list)
    """id and reason of what is unfinished."""
    unfinished: list[Trajectory] = field(default_factory=list)
    """What there is of those that the infrastructure ended in this run."""

    def to_json(self) -> dict[str, Any]:
        """What `swe-srl rollout --json` prints."""
        return {"rollouts": [summary(rollout) for rollout in self.rollouts], "failed": self.failed}


def run_rollouts(
    starts: Sequence[Start],
    tasks: Mapping[str, Task],
    policy: Policy | Writer,
    out: Path,
    settings: Mapping[str, Any],
    options: RolloutOptions,
    say: Callable[[str], None],
    act: Act = act_alone,
    cluster: base.Cluster | None = None,
) -> RolloutReport:
    """Make what the folder `out` does not hold yet. Raises UserError where nothing can be begun.

    settings: what decides the rollouts beside the options and the tasks, as JSON values.
    act: takes the policy and `options.agent` as it needs them.
    cluster: that of `options.cluster`, opened; None: this machine.
    """
    client = connect_and_reap()
    if options.limits.runtime:
        check_runtime(client, options.limits.runtime)
    report = RolloutReport()
    needed = {start.trajectory.task_id: tasks[start.trajectory.task_id] for start in starts}
    built, failed = build_images(client, list(needed.values()), say, options.workers)
    needed = with_hidden_tests(client, needed, built, failed)
    report.failed += [{"id": name, "reason": reason} for name, reason in failed.items()]
    images = {name: image.tag for name, image in built.items()}
    if options.cluster != "local":
        for tag in sorted(set(images.values())):
            send_image(client, tag, options.shipping, say)
    decided = {**settings, "agent": options.agent.model_dump(), "limits": asdict(options.limits), "reruns": options.reruns}
    jobs = [
        _job(start, needed[start.trajectory.task_id], attempt, images[start.trajectory.task_id], decided)
        for start in starts
        if start.trajectory.task_id in images
        for attempt in range(options.attempts)
    ]
    with RolloutFolder(out, decided, overwrite=options.overwrite) as folder:
        done, waiting = _split(jobs, folder)
        if done:
            say(f"{len(done)} of {len(jobs)} rollouts are in {out} already; --overwrite begins anew")
        report.rollouts += done
        with progress_bars() as progress:
            bar = progress.add_task("rolling out", total=len(waiting))
            answered = progress.add_task("answers", total=None)

            def keep(rollout: Trajectory, error: str | None) -> None:
                progress.advance(bar)
                if error is None:
                    report.rollouts.append(without_tokens(rollout))
                else:
                    report.unfinished.append(without_tokens(rollout))
                    report.failed.append({"id": rollout.id, "reason": error})
                try:
                    folder.append(rollout)
                except (OSError, ValueError) as failure:
                    report.failed.append({"id": rollout.id, "reason": f"it could not be written to {out}: {failure}"})

            work = RolloutWork(policy, options, act, shipping=options.shipping, client=client)
            nodes = cluster or LocalCluster(options.workers)
            _run_all(nodes, waiting, work, say, lambda: progress.advance(answered), keep)
    report.rollouts.sort(key=lambda rollout: rollout.id)
    return report


def _job(start: Start, task: Task, attempt: int, image: str, settings: Mapping[str, Any]) -> Job:
    tests = [task.test_command, task.test_patch, task.fail_to_pass, task.pass_to_pass]
    key = digest(settings, image, tests, start.to_json(), start.image, [turn.text for turn in start.trajectory.turns], attempt)
    return Job(f"{start.trajectory.id}-rollout-{attempt}", task, start, attempt, image, key)


def _split(jobs: Sequence[Job], folder: RolloutFolder) -> tuple[list[Trajectory], list[Job]]:
    """What is there, and what is to be made. Raises UserError where what is there is of another state of its task."""
    done, waiting = [], []
    for job in jobs:
        there = folder.finished.get(job.id)
        if there is None:
            waiting.append(job)
        elif there.extra["rollout"]["key"] == job.key:
            done.append(there)
        else:
            raise UserError(
                f"{folder.path}: holds {job.id} made when its task, image or start was another; name another --out, or pass "
                "--overwrite to start anew"
            )
    return done, waiting


def _run_all(
    cluster: base.Cluster,
    jobs: Sequence[Job],
    work: RolloutWork,
    say: Callable[[str], None],
    on_answer: Callable[[], None],
    on_done: Callable[[Trajectory, str | None], None],
) -> None:
    """Leaves no container behind, even on Ctrl-C. `on_done` is called in this thread as each rollout ends."""
    needs = needs_of(work.options.limits)
    with closing(cluster.run(work, pieces_of(cluster, jobs, needs, say), needs, on_answer)) as ends:
        for done in ends:
            on_done(*work.made(done))


def pieces_of(
    cluster: base.Cluster, jobs: Sequence[Job], needs: base.Needs, say: Callable[[str], None]
) -> Iterator[base.Job[Job]]:
    """Rollouts as jobs of a cluster; one that begins in a snapshot waits for the node that keeps it."""
    states = {job.start.image for job in jobs if job.start.image}
    homes = find_homes(cluster, states, needs)
    if gone := len(states) - len(homes):
        say(f"{gone} of {len(states)} states are kept nowhere any more: the steps before them are executed again")
    return (base.Job(job.id, job, job.image, homes.get(job.start.image or "")) for job in jobs)


def make_rollout(
    client: docker.DockerClient,
    job: Job,
    policy: Policy | Writer,
    options: RolloutOptions,
    stopping: threading.Event,
    act: Act = act_alone,
    on_answer: Callable[[], None] = lambda: None,
    on_acted: Callable[[], None] = lambda: None,
) -> tuple[Trajectory, str | None]:
    """One rollout with its outcome, begun again where its sandbox was lost; and what failed, if anything.

    stopping: set where no rollout is to be begun again.
    on_acted: called when the policy has acted, before its work is tested.
    """
    attempts = 1
    made, error, lost = _make(client, job, policy, options, act, on_answer, on_acted, attempts)
    while lost and attempts <= options.retries and wait_for_daemon(client, stopping):
        attempts += 1
        made, error, lost = _make(client, job, policy, options, act, on_answer, on_acted, attempts)
    return made, error


def _make(
    client: docker.DockerClient,
    job: Job,
    policy: Policy | Writer,
    options: RolloutOptions,
    act: Act,
    on_answer: Callable[[], None],
    on_acted: Callable[[], None],
    attempts: int,
) -> tuple[Trajectory, str | None, bool]:
    """One rollout with its outcome; what failed, if anything; whether that was the sandbox."""
    started = time.monotonic()
    acted = Acted(replace(job.start.trajectory, exit_status="sandbox_fault", model=policy.name), None, 0.0, 0.0)
    tests, exact, test_seconds, error, lost = None, None, 0.0, None, False
    patch: bytes | PatchError | None = None
    try:
        kept = job.start.image is not None and has_image(client, job.start.image)
        start = job.start if kept else replace(job.start, image=None)
        with DockerSandbox.start(client, start.image or job.image, options.limits) as sandbox:
            exact = start.prepare(sandbox)
            acted = act(policy, sandbox, start, options.agent, on_answer)
            error, lost = acted.error, acted.trajectory.exit_status == "sandbox_fault"
            if not lost:  # such a one may act again
                on_acted()
            if acted.trajectory.exit_status == Destroyed.status:
                tests = _untestable(job.task)
            elif acted.trajectory.exit_status not in FAULTS:
                patch = _final_patch(sandbox)
        if patch is not None:
            begun = time.monotonic()
            tests = judge(client, job.image, job.task, patch, options.limits, options.reruns)
            test_seconds = time.monotonic() - begun
    except SandboxLost as fault:
        if fault.from_inside and acted.trajectory.turns != job.start.trajectory.turns:  # by what the policy left running
            acted, tests = replace(acted, trajectory=replace(acted.trajectory, exit_status="destroyed")), _untestable(job.task)
        else:
            error, lost = str(fault), True
    except SandboxUnavailable as fault:
        error, lost = str(fault), True
    except UserError as fault:
        error = str(fault)
    except OSError as fault:
        error = f"{fault.filename}: {fault.strerror}" if fault.filename else first_line(fault)
    seconds = {"sampling": acted.sampling_seconds, "commands": acted.command_seconds, "tests": test_seconds}
    text = patch.decode("utf-8", "replace") if isinstance(patch, bytes) else None
    ended = replace(acted.trajectory, id=job.id, submission=text)
    if error is not None and ended.exit_status not in FAULTS:
        ended, tests = replace(ended, exit_status="sandbox_fault"), None
    record = RolloutRecord(
        key=job.key,
        attempt=job.attempt,
        start=job.start.to_json(exact),
        seconds={name: round(value, 3) for name, value in {**seconds, "total": time.monotonic() - started}.items()},
        tests=tests,
        flags=flags(ended, text, job.task),
        error=error,
        sandboxes=attempts,
    )
    return with_record(ended, record), error, lost


def _untestable(task: Task) -> Tested | None:
    """Of a sandbox that the policy destroyed."""
    return Tested.not_run(task, "the policy's commands ended its sandbox", resolved=False) if can_grade(task) else None


def _final_patch(sandbox: DockerSandbox) -> bytes | PatchError:
    try:
        return final_patch(sandbox)
    except PatchError as error:
        return error
