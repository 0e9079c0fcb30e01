"""Where the jobs of a run were begun, so that those of a lost node are known as soon as it counts as lost.

Ray does a job again when the connection to its process breaks. A machine that falls silent (its cable is pulled, it stands
still) breaks none, and Ray may not see it for minutes.

Invariant: each beginning of a job has a key of its own, under which its process writes its node in the store of the head.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from typing import Any

from ray.experimental import internal_kv

_SPACE = b"swe_srl_begun"


def begin(key: str, node: str) -> None:
    """Written by the process that begins a job."""
    internal_kv._internal_kv_put(key.encode(), node.encode(), overwrite=True, namespace=_SPACE)


class Whereabouts:
    """Of one run's jobs."""

    def __init__(self) -> None:
        self._run, self._count = uuid.uuid4().hex, 0
        self._seen: set[str] = set()

    def key(self) -> str:
        """A new one."""
        self._count += 1
        return f"{self._run}-{self._count}"

    def lost(self, keys: Mapping[Any, str], alive: Collection[str]) -> list[Any]:
        """Those that were begun on a node that was alive once and is not now. `keys`: whatever they are called → key."""
        gone, self._seen = self._seen - set(alive), self._seen | set(alive)
        if not gone:
            return []
        return [name for name, key in keys.items() if (node := _node_of(key)) is not None and node in gone]

    def forget(self) -> None:
        """The run has ended."""
        internal_kv._internal_kv_del(self._run.encode(), del_by_prefix=True, namespace=_SPACE)


def _node_of(key: str) -> str | None:
    found = internal_kv._internal_kv_get(key.encode(), namespace=_SPACE)
    return None if found is None else found.decode()
