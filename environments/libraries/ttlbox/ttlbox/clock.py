"""A clock that moves only when it is told to."""


class ManualClock:
    """Stands in for ``time.monotonic`` where time must be under control."""

    def __init__(self, start=0.0):
        self._now = start

    def __call__(self):
        return self._now

    def advance(self, seconds):
        """Move on by ``seconds``; a clock never runs backwards."""
        if seconds < 0:
            raise ValueError("a clock cannot go back")
        self._now += seconds
