"""Stopping a run with Ctrl-C without tearing an update in two.

Invariant: inside the context the first Ctrl-C only asks; the run stops where it next looks (`check`). A second one stops at
once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any


class StopRequested(Exception):
    """Raised by `check` after a Ctrl-C."""


class Interrupt:
    """Catches SIGINT while a run is on. Outside the main thread, where signals cannot be caught, it never asks to stop.

    Args:
        announce: called at the first Ctrl-C, to say that the run will stop and when.
    """

    def __init__(self, announce: Callable[[], None]) -> None:
        self.requested = False
        self._announce = announce
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def check(self) -> None:
        """Raise StopRequested if Ctrl-C was pressed."""
        if self.requested:
            raise StopRequested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self._announce()
