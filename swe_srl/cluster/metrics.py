"""What Ray's dashboard and Prometheus hear of jobs.

Invariant: a job is counted once, where it ends; nothing that differs from job to job is in a label, so that there are as many
series as kinds of work and processes. Without `ray[default]` on a node its numbers go nowhere.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Counter, Gauge, Histogram

from swe_srl.cluster.meters import SANDBOXES

_BOUNDARIES = [0.1, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000]


class Metrics:
    """The metrics of this process; Ray puts `ray_` before their names."""

    def __init__(self) -> None:
        self._jobs = Counter("swe_srl_jobs", "Jobs that ended: done, raised, or lost with their nodes.", ("work", "outcome"))
        self._seconds = Histogram("swe_srl_job_seconds", "What jobs took on their nodes.", _BOUNDARIES, ("work",))
        self._running = Gauge("swe_srl_jobs_running", "Jobs now.", ("work",))
        sandboxes = Gauge("swe_srl_sandboxes", "Sandboxes that are open now.")
        SANDBOXES.tell(sandboxes.set)

    @contextmanager
    def job(self, work: str) -> Iterator[None]:
        """Around a job on its node."""
        begun, outcome = time.monotonic(), "raised"
        self._running.set(1, {"work": work})
        try:
            yield
            outcome = "done"
        finally:
            self._running.set(0, {"work": work})
            self._seconds.observe(time.monotonic() - begun, {"work": work})
            self._jobs.inc(1, {"work": work, "outcome": outcome})

    def lost(self, work: str) -> None:
        """A job is given up whose nodes were lost; said by the one who gave it."""
        self._jobs.inc(1, {"work": work, "outcome": "lost"})


@functools.lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Those of this process."""
    return Metrics()
