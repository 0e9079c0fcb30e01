"""Work that runs sandboxes, on whatever machine it is called.

Invariant: here it has the client that it was given. Where it has travelled it finds the daemon that answers there, and an image
that this lacks is fetched before a sandbox of it is started.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Any

import docker

from swe_srl.cluster.base import Needs
from swe_srl.environments.docker import remove_containers_of_this_run
from swe_srl.environments.reaper import client_of_process, reap
from swe_srl.environments.sandbox import Limits
from swe_srl.environments.shipping import Shipping, fetch_image
from swe_srl.environments.task import Task


@dataclass(kw_only=True)
class SandboxWork:
    """What `Work` of this kind has in common."""

    shipping: Shipping | None = None
    """How other machines come to have the images; None where they have them."""
    client: docker.DockerClient | None = None
    """Of this machine; it does not travel."""

    def __post_init__(self) -> None:
        self.stopping = threading.Event()
        """Set where nothing is to be begun again."""

    def __getstate__(self) -> dict[str, Any]:
        """What travels."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"client": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def daemon(self) -> docker.DockerClient:
        """A client of the machine's daemon. Raises UserError where none answers."""
        return client_of_process() if self.client is None else self.client

    def have(self, image: str, task: Task) -> None:
        """Make sure that the machine has a task's image. Raises UserError where it cannot be had."""
        if self.client is None and self.shipping is not None:
            fetch_image(client_of_process(), image, task, self.shipping)

    def abort(self) -> None:
        """See `Work.abort`."""
        self.stopping.set()
        remove_containers_of_this_run(self.daemon())
        if self.client is None:
            reap(client_of_process())


def needs_of(limits: Limits) -> Needs:
    """What a sandbox takes of its machine."""
    return Needs(limits.cpus, limits.memory_bytes, limits.disk_bytes)
