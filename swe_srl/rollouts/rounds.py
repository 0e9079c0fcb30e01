"""Where rollouts that go in step wait for their answers, and whoever samples takes what they ask, a round at a time.

Invariant: a round is everyone who acts, in the order of their names, and is there when all of them wait. Nothing of models or
prompts is known here: those who ask and the one who answers may be on other machines than this.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, Protocol

from swe_srl.rollouts.agent import Reply
from swe_srl.trajectories.model import Step

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rollout waits for."""

    ticket: int
    """Of this asking; a rollout that is begun again gets another."""
    name: str
    step: Step
    tools: Tools

    @property
    def place(self) -> tuple[str, int]:
        """The rollout and its turn."""
        return self.name, self.step.turn_index


class Meeting(Protocol):
    """Where rollouts and who samples meet."""

    def begin(self, names: Iterable[str]) -> None:
        """Open with these rollouts, which a round waits for."""
        ...

    def ask(self, name: str, step: Step, tools: Tools) -> Reply:
        """The answer for a rollout, in a thread of its own. Raises what `answer` was given, and CancelledError when closed."""
        ...

    def leave(self, name: str) -> None:
        """The rollout asks no more. May be called twice."""
        ...

    def gather(self, seconds: float) -> tuple[list[Asked], list[str]]:
        """A round, and whom it does without; empty where there is none within so many seconds. It waits until answered."""
        ...

    def answer(self, answers: Mapping[int, Reply | Exception]) -> None:
        """Answer some of a round, by ticket; who was lost meanwhile is not answered."""
        ...

    def close(self) -> None:
        """Turn away whoever waits or comes, until it is begun again."""
        ...


class Rounds:
    """A `Meeting` in this process. Threads share it."""

    def __init__(self, patience: float = math.inf) -> None:
        """patience: seconds in which nobody asks or leaves, after which those who wait are not kept waiting for the others."""
        self._patience = patience
        self._acting: set[str] = set()
        self._waiting: dict[str, tuple[Asked, Future[Reply]]] = {}
        self._tickets = itertools.count()
        self._closed = False
        self._changed = threading.Condition()
        self._moved = time.monotonic()

    def begin(self, names: Iterable[str]) -> None:
        """See `Meeting`."""
        with self._changed:
            self._acting, self._closed = set(names), False
            self._move()

    def ask(self, name: str, step: Step, tools: Tools) -> Reply:
        """See `Meeting`."""
        future: Future[Reply] = Future()
        with self._changed:
            if self._closed:
                raise CancelledError
            self._drop(name)  # asked by one that was lost with its machine
            self._acting.add(name)
            self._waiting[name] = (Asked(next(self._tickets), name, step, tools), future)
            self._move()
        return future.result()

    def leave(self, name: str) -> None:
        """See `Meeting`."""
        with self._changed:
            self._acting.discard(name)
            self._drop(name)
            self._move()

    def gather(self, seconds: float) -> tuple[list[Asked], list[str]]:
        """See `Meeting`."""
        with self._changed:
            self._changed.wait_for(self._is_complete, seconds)
            if not self._is_complete():
                return [], []
            names = sorted(self._waiting)
            return [self._waiting[name][0] for name in names], sorted(self._acting - self._waiting.keys())

    def answer(self, answers: Mapping[int, Reply | Exception]) -> None:
        """See `Meeting`."""
        with self._changed:
            for name, (asked, future) in list(self._waiting.items()):
                if asked.ticket in answers:
                    del self._waiting[name]
                    given = answers[asked.ticket]
                    future.set_exception(given) if isinstance(given, Exception) else future.set_result(given)
            self._move()

    def close(self) -> None:
        """See `Meeting`."""
        with self._changed:
            self._closed = True
            for name in list(self._waiting):
                self._drop(name)

    def _is_complete(self) -> bool:
        late = time.monotonic() - self._moved > self._patience
        return bool(self._waiting) and (late or self._waiting.keys() >= self._acting)

    def _drop(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.pop(name)[1].cancel()

    def _move(self) -> None:
        self._moved = time.monotonic()
        self._changed.notify_all()
