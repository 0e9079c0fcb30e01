"""A limit on what a sandbox writes into its files.

Where the daemon's storage has quotas (overlay2 on XFS mounted with `pquota`, btrfs, ZFS) the daemon sets the limit, and a write
beyond it fails. Elsewhere the sandbox's files are measured from outside, every second or as often as that costs a twentieth of
the time, and one over its limit is killed. Invariant: no sandbox runs without the one or the other.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from typing import Any

import docker
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from swe_srl.environments.runs import RUN_ID, RUN_LABEL

_LOOK_SECONDS = 1.0
_LARGEST_SHARE = 20


class DiskGuard:
    """The limits of all sandboxes of one client."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = weakref.ref(client)
        self._has_quota: bool | None = None
        self._limits: dict[str, int] = {}
        self._over: dict[str, str] = {}
        self._watching = False
        self._lock = threading.Lock()

    def create(self, client: docker.DockerClient, image: str, limit: int, **options: Any) -> Container:
        """A container of which at most `limit` bytes of files differ from its image's. Raises what the daemon raises."""
        if self._has_quota is not False:
            try:
                container: Container = client.containers.create(image, storage_opt={"size": str(limit)}, **options)
            except APIError as error:
                if not any(words in str(error).lower() for words in ("storage-opt", "storage opt", "quota")):
                    raise
                self._has_quota = False
            else:
                self._has_quota = True
                return container
        container = client.containers.create(image, **options)
        self._watch(str(container.id), limit)
        return container

    def forget(self, container: str) -> None:
        """Its sandbox has ended."""
        with self._lock:
            self._limits.pop(container, None)

    def reason(self, container: str) -> str | None:
        """Why it was killed here, or None where it was not."""
        return self._over.get(container)

    def _watch(self, container: str, limit: int) -> None:
        with self._lock:
            self._limits[container] = limit
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._look_until_all_have_ended, daemon=True).start()

    def _look_until_all_have_ended(self) -> None:
        pause = _LOOK_SECONDS
        while True:
            time.sleep(pause)
            client = self._client()
            with self._lock:
                if client is None or not self._limits:
                    self._watching = False
                    return
            began = time.monotonic()
            with contextlib.suppress(APIError, DockerException, OSError):  # it may be away for a while
                self._look(client)
            pause = max(_LOOK_SECONDS, _LARGEST_SHARE * (time.monotonic() - began))

    def _look(self, client: Any) -> None:
        for row in client.api.containers(size=True, filters={"label": f"{RUN_LABEL}={RUN_ID}"}):
            size, limit = int(row.get("SizeRw") or 0), self._limits.get(row["Id"])
            if limit is not None and size > limit:
                self._over[row["Id"]] = f"the sandbox was killed: it wrote {size} bytes into its files, and may write {limit}"
                with contextlib.suppress(APIError):  # it has ended meanwhile
                    client.api.kill(row["Id"])


_guards: weakref.WeakKeyDictionary[docker.DockerClient, DiskGuard] = weakref.WeakKeyDictionary()
_guards_lock = threading.Lock()


def disk_guard(client: docker.DockerClient) -> DiskGuard:
    """The one guard of a client."""
    with _guards_lock:
        return _guards.setdefault(client, DiskGuard(client))
