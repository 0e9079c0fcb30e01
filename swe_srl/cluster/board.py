"""What runs on a cluster tell of themselves: how many jobs wait, run and have ended, and how fast.

Invariant: a run writes its own notice alone, in the store of the cluster's head, and takes it down when it ends; one that was
killed leaves a notice that says when it was written, and is not shown for long.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections import deque
from typing import Any

from ray.experimental import internal_kv

_SPACE = b"swe_srl"
_PACE_SECONDS = 2.0
_SHOWN_SECONDS = 600.0
_RATE_SECONDS = 300.0


class Notice:
    """Of one run."""

    def __init__(self, work: str) -> None:
        self._key = uuid.uuid4().hex.encode()
        self._row: dict[str, Any] = {"work": work, "host": platform.node(), "pid": os.getpid(), "done": 0, "lost": 0}
        self._begun = time.monotonic()
        self._ends: deque[float] = deque()
        self._written = -_PACE_SECONDS

    def ended(self, *, lost: bool) -> None:
        """One more job has."""
        self._row["lost" if lost else "done"] += 1
        self._ends.append(time.monotonic())

    def write(self, handed_over: int, at_a_time: int) -> None:
        """Write it anew, unless it was just written.

        handed_over: jobs that have not ended.
        at_a_time: how many of them the nodes can run.
        """
        now = time.monotonic()
        if now - self._written < _PACE_SECONDS:
            return
        self._written = now
        while self._ends and self._ends[0] < now - _RATE_SECONDS:
            self._ends.popleft()
        spent = min(_RATE_SECONDS, max(1.0, now - self._begun))
        row = {
            **self._row,
            "running": min(handed_over, at_a_time),
            "waiting": max(0, handed_over - at_a_time),
            "jobs_per_minute": round(60 * len(self._ends) / spent, 1),
            "written": time.time(),
        }
        internal_kv._internal_kv_put(self._key, json.dumps(row).encode(), overwrite=True, namespace=_SPACE)

    def take_down(self) -> None:
        """The run has ended."""
        internal_kv._internal_kv_del(self._key, namespace=_SPACE)


def notices() -> list[dict[str, Any]]:
    """A row a run, by host and process; `seconds_ago` is when it was last heard of."""
    now, rows = time.time(), []
    for key in internal_kv._internal_kv_list(b"", namespace=_SPACE):
        content = internal_kv._internal_kv_get(key, namespace=_SPACE)
        if content is not None:  # taken down in between
            row = json.loads(content)
            row["seconds_ago"] = round(max(0.0, now - row.pop("written")))
            rows.append(row)
    return sorted((row for row in rows if row["seconds_ago"] < _SHOWN_SECONDS), key=lambda row: (row["host"], row["pid"]))
