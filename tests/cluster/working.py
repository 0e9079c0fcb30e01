"""Work for the tests of clusters. In a module of its own, since nodes import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from swe_srl.cluster.placing import Placed


@dataclass(frozen=True)
class Doubling:
    """2 × the payload."""

    def __call__(self, payload: int, tick: Callable[[], None]) -> int:
        tick()
        return 2 * payload

    def abort(self) -> None: ...


@dataclass(frozen=True)
class Refusing:
    """Raises at payload 3."""

    def __call__(self, payload: int, tick: Callable[[], None]) -> int:
        if payload == 3:
            raise ValueError("no 3 is taken")
        return payload

    def abort(self) -> None: ...


@dataclass(frozen=True)
class Dying:
    """The process ends without a word the first time that a payload is tried; afterwards the number of tries is the result."""

    folder: Path

    def __call__(self, payload: int, tick: Callable[[], None]) -> int:
        tries = self.folder / str(payload)
        with tries.open("a") as file:
            file.write("x")
        if len(tries.read_text()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(tries.read_text())

    def abort(self) -> None: ...


@dataclass(frozen=True)
class Holding:
    """Writes down that it has begun, and ends once the file `go` is there. What was begun is noted, and what abort was told."""

    folder: Path

    def __call__(self, payload: int, tick: Callable[[], None]) -> int:
        (self.folder / f"begun-{payload}").touch()
        while not (self.folder / "go").exists():
            if (self.folder / "aborted").exists():
                raise RuntimeError("aborted")
            time.sleep(0.02)
        return payload

    def abort(self) -> None:
        (self.folder / "aborted").touch()

    def begun(self) -> set[int]:
        return {int(file.name.partition("-")[2]) for file in self.folder.glob("begun-*")}


class Counting:
    """Counts from a number; can refuse, wait, and be killed."""

    def __init__(self, at: int = 0, noting: Path | None = None) -> None:
        self.at, self._noting = at, noting

    def add(self, number: int, *, twice: bool = False) -> int:
        self.at += 2 * number if twice else number
        return self.at

    def process(self) -> int:
        return os.getpid()

    def refuse(self, what: str) -> None:
        raise ValueError(f"no {what} is taken")

    def kill_once(self, noting: Path) -> int:
        """The process ends without a word the first time; afterwards where the count is."""
        if not noting.exists():
            noting.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.at

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        if self._noting is not None:
            self._noting.touch()


@dataclass(frozen=True)
class Asking:
    """Adds the payload to a placed `Counting`."""

    placed: Placed

    def __call__(self, payload: int, tick: Callable[[], None]) -> int:
        return int(self.placed.call("add", payload))

    def abort(self) -> None: ...
