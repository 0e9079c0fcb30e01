"""Execute actions in forks of the state before their step, and say what each did.

Invariant: one fork an action, thrown away after it; what is executed twice is executed once, also over runs (`EffectCache`). A
sandbox that cannot be had or is lost, and a limit that is reached, is a `Fault`, never an effect. Faults are not kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import docker

from swe_srl.environments.docker import DockerSandbox, pool_of_containers
from swe_srl.environments.replay import run_action
from swe_srl.environments.sandbox import Limits, Sandbox, SandboxLost
from swe_srl.environments.session import SESSION_FILE
from swe_srl.environments.shell import first_line
from swe_srl.errors import UserError
from swe_srl.rewards.effect import Effect
from swe_srl.rewards.states import States
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step

_VERSION = 2
"""Part of every key: raise it when the code changes what is executed or kept."""
_INDEX = "/dev/shm/swe-srl-effect"
_GIT = (
    "git -c core.fsmonitor=false -c core.hooksPath=/dev/null -c core.attributesFile=/dev/null -c advice.addEmbeddedRepo=false "
    "-c core.autocrlf=false"
)
# With an index of its own, so that what is staged stays as it is; by plumbing, which an agent's settings do not reach.
_BEFORE = f"""export GIT_INDEX_FILE={_INDEX}.index GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
cp "$({_GIT} rev-parse --git-dir)/index" $GIT_INDEX_FILE
{_GIT} add -A 2>/dev/null; {_GIT} write-tree && touch {_INDEX}.mark"""
_AFTER = f"""export GIT_INDEX_FILE={_INDEX}.index GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
{_GIT} add -A 2>/dev/null
{_GIT} diff-index --cached --patch --unified=0 --no-color --no-ext-diff --no-textconv --no-renames --full-index {{tree}} 2>&1 |
head -c {{most}}
[ {{session}} -nt {_INDEX}.mark ] && printf '\\n%s %s\\n' {{token}} {{session}} && head -c 20000 {{session}}
{{{{ find /tmp /var/tmp /root /home -xdev -type f {{new}}
find . -xdev -type f {{new}} | {_GIT} check-ignore --stdin; }}}} 2>/dev/null | sort | head -n 50 |
while IFS= read -r file; do printf '\\n%s %s\\n' {{token}} "$file"; head -c 20000 "$file"; done"""
# Written since; no cache that a program leaves by itself, and not what the scaffolds' own tools keep.
_NEW = f"-newer {_INDEX}.mark ! -path '/var/tmp/swe-srl/*' ! -name '*.pyc' ! -name '.coverage*' " + " ".join(
    f"! -path '*/{name}/*'"
    for name in (
        *(".cache", "__pycache__", "pytest-of-*", ".pytest_cache", ".hypothesis", ".mypy_cache", ".tox", ".venv", ".eggs"),
        *("*.egg-info", "build", "node_modules", ".git"),
    )
)
_MOST_CHARACTERS = 400_000
_SCRIPT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why it is not known what an action did."""

    reason: str


Executed = tuple[str, Effect | Fault, float]
"""A key, its effect, and the seconds that its fork lived."""
Executor = Callable[[Mapping[str, tuple[Step, Action]], float | None], Generator[Executed, None, None]]
"""What each of some actions does, by key; the deadline is of the monotonic clock. Closed, it leaves no container."""


@dataclass(slots=True)
class Spent:
    """What finding effects has cost so far."""

    executed: int = 0
    cached: int = 0
    faults: int = 0
    command_seconds: float = 0.0
    """Inside the actions' own commands."""
    fork_seconds: float = 0.0
    """Everything else in a fork's life: starting it, looking at its files, removing it."""


class Forks:
    """Finds effects over a pool of forks."""

    def __init__(
        self,
        client: docker.DockerClient,
        states: States,
        cache: EffectCache,
        *,
        workers: int = 2,
        timeout_seconds: float = 60.0,
        max_seconds: float | None = None,
        max_executions: int | None = None,
        limits: Limits | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        execute: Executor | None = None,
    ) -> None:
        """timeout_seconds: of one action, where its trajectory has no shorter one.

        max_seconds: of one call of `effects`; what has not begun by then is a fault.
        max_executions: of one call, too; the actions first asked for are executed.
        progress: called with how many of the actions to be executed have been, and how many there are.
        execute: executes them elsewhere; None: in forks on this machine.
        """
        self._client, self._states, self._cache = client, states, cache
        self._workers, self._timeout, self._max_seconds = workers, timeout_seconds, max_seconds
        self._most = max_executions
        self._limits, self._progress = limits, progress
        self._execute: Executor = execute or self.execute
        self.spent = Spent()

    def effects(self, wanted: Sequence[tuple[Step, Action]]) -> list[Effect | Fault]:
        """What each action does at its step, in order. Leaves no container behind, even on Ctrl-C."""
        deadline = None if self._max_seconds is None else time.monotonic() + self._max_seconds
        keys = [self._key(step, action) for step, action in wanted]
        found: dict[str, Effect | Fault] = {}
        missing: dict[str, tuple[Step, Action]] = {}
        for key, pair in zip(keys, wanted, strict=True):
            if key in found or key in missing:
                continue
            if (kept := self._cache.get(key)) is not None:
                found[key] = kept
                self.spent.cached += 1
            elif self._most is None or len(missing) < self._most:
                missing[key] = pair
            else:
                found[key] = Fault(f"the limit of {self._most} executed actions was reached")
                self.spent.faults += 1
        if missing:
            with closing(self._execute(missing, deadline)) as executed:
                for done, (key, effect, seconds) in enumerate(executed, 1):
                    found[key] = self._noted(key, effect, seconds)
                    self._progress(done, len(missing))
        return [found[key] for key in keys]

    def execute(self, missing: Mapping[str, tuple[Step, Action]], deadline: float | None) -> Generator[Executed, None, None]:
        """An `Executor`, on this machine."""
        with pool_of_containers(self._client, self._workers) as pool:
            lost = self._states.prepare([step for step, _ in missing.values()], pool, deadline)
            futures: dict[str, Future[tuple[Effect | Fault, float]]] = {
                key: pool.submit(self._one, step, action, lost.get(self._states.key(step)), deadline)
                for key, (step, action) in missing.items()
            }
            for key, future in futures.items():
                yield key, *future.result()

    def _key(self, step: Step, action: Action) -> str:
        run = step.trajectory
        calls = [(call.name, dict(call.arguments)) for call in action.calls]
        decided = [_VERSION, self._states.key(step), run.scaffold, dict(run.environment), self._seconds(step), calls]
        if get_scaffold(run.scaffold).persistent_shell:
            decided.append(_environment(step))
        return hashlib.sha256(json.dumps(decided, sort_keys=True, default=str).encode()).hexdigest()

    def _seconds(self, step: Step) -> float:
        own = step.trajectory.timeout_seconds or get_scaffold(step.trajectory.scaffold).timeout_seconds
        return min(self._timeout, own)

    def _noted(self, key: str, effect: Effect | Fault, seconds: float) -> Effect | Fault:
        if isinstance(effect, Fault):
            self.spent.faults += 1
            return effect
        self._cache.put(key, effect)
        self.spent.executed += 1
        self.spent.command_seconds += effect.seconds
        self.spent.fork_seconds += seconds - effect.seconds
        return effect

    def _one(self, step: Step, action: Action, lost: str | None, deadline: float | None) -> tuple[Effect | Fault, float]:
        """What one action does, and the seconds its fork lived."""
        if lost is None and deadline is not None and time.monotonic() > deadline:
            lost = f"the limit of {self._max_seconds:g} seconds was reached"
        if lost is not None:
            return Fault(lost), 0.0
        started = time.monotonic()
        try:
            with DockerSandbox.start(self._client, self._states.image(step), self._limits) as sandbox:
                effect: Effect | Fault = self._in_fork(sandbox, step, action)
        except (SandboxLost, UserError, OSError) as error:  # a daemon that failed is a UserError, too
            effect = Fault(first_line(error))
        return effect, time.monotonic() - started

    def _in_fork(self, sandbox: Sandbox, step: Step, action: Action) -> Effect:
        scaffold = get_scaffold(step.trajectory.scaffold)
        if scaffold.persistent_shell:  # its first command writes down the shell's state, whatever it does
            sandbox.execute("true", timeout=_SCRIPT_SECONDS, env=_environment(step), session=True)
        before = sandbox.execute(_BEFORE, timeout=_SCRIPT_SECONDS)
        if before.returncode != 0:
            raise SandboxLost(f"the repository cannot be read: {before.output.strip()[-200:]}")
        tree = before.output.split()[-1]
        limit = self._seconds(step)
        run = dataclasses.replace(step.trajectory, timeout_seconds=limit)
        started = time.monotonic()
        seen = run_action(sandbox, scaffold, action, run)
        seconds = time.monotonic() - started
        token = secrets.token_hex(16)
        script = _AFTER.format(tree=tree, token=token, most=_MOST_CHARACTERS, session=SESSION_FILE, new=_NEW)
        after = sandbox.execute(script, timeout=_SCRIPT_SECONDS)
        patch, *outside = after.output.split(f"\n{token} ")
        files = dict(part.partition("\n")[::2] for part in outside)
        timed_out = bool(seen.extra.get("timed_out")) or (seen.returncode is None and seconds >= limit)
        session = files.pop(SESSION_FILE, "")
        return Effect(patch, seen.compared[:_MOST_CHARACTERS], seen.returncode, timed_out, files, session, seconds)


def _environment(step: Step) -> dict[str, str]:
    return {**get_scaffold(step.trajectory.scaffold).environment, **step.trajectory.environment}


class EffectCache:
    """Effects by key, in a folder: one file each, written whole. Threads and processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Effect | None:
        """The effect kept under a key; None where there is none, or its file is damaged."""
        try:
            return Effect.from_json(json.loads(self._file(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, effect: Effect) -> None:
        """Keep an effect. Raises OSError where there is no room."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{os.getpid()}")
        partial.write_text(json.dumps(effect.to_json()), encoding="utf-8", errors="replace")
        os.replace(partial, file)

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
