"""Numbers of this process that go up and down, and who listens to them.

Invariant: counting needs nothing of Ray; without a listener nothing is told to anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Meter:
    """How many there are now."""

    def __init__(self) -> None:
        self.value = 0
        self._listener: Callable[[int], object] | None = None
        self._lock = threading.Lock()

    def add(self, change: int) -> None:
        """So many more, or fewer."""
        with self._lock:
            self.value += change
            if self._listener is not None:
                self._listener(self.value)

    def tell(self, listener: Callable[[int], object]) -> None:
        """Have a listener told the number, now and whenever it changes."""
        with self._lock:
            self._listener = listener
            listener(self.value)


SANDBOXES = Meter()
"""The sandboxes that this process has open."""
