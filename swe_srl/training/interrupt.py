"""Stopping a run from outside without tearing an update in two.

Invariant: inside the context the first SIGINT (Ctrl-C) or SIGTERM only asks; the run stops where it next looks (`check`). A
second Ctrl-C stops at once; a second SIGTERM changes nothing, because some supervisors send it twice.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

_CAUGHT = (signal.SIGINT, signal.SIGTERM)


class StopRequested(Exception):
    """Raised by `check` after a signal."""

    def __init__(self, signal: signal.Signals) -> None:
        super().__init__(signal)
        self.signal = signal


class Interrupt:
    """Catches signals while a run is on. Outside the main thread, where they cannot be caught, it never asks to stop.

    Args:
        announce: called with the first signal, to say that the run will stop and when.
        highest: the highest number that a process of the run has (0: no signal), where there are several: they stop together.
    """

    def __init__(self, announce: Callable[[signal.Signals], None], highest: Callable[[int], int] = int) -> None:
        self.requested: signal.Signals | None = None
        """The first signal."""
        self._announce, self._highest = announce, highest
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _CAUGHT}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise StopRequested if a signal came, to this process or to another; all of them must check."""
        if number := self._highest(self.requested or 0):
            self.requested = signal.Signals(number)
            raise StopRequested(self.requested)

    def check_own(self) -> None:
        """Raise StopRequested if a signal came to this process. One that checks so has to tell others."""
        if self.requested is not None:
            raise StopRequested(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is None:
            self.requested = signal.Signals(number)
            self._announce(self.requested)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
