"""Remove what dead runs left in the Docker daemon: their containers and temporary images.

Invariant: nothing of a living run is touched, and no image that a person or a run folder may still want. Snapshots that a run
folder names, task images and base images are never removed here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import docker

from swe_srl.environments.docker import TEMPORARY_LABEL, connect, docker_errors, remove_container, remove_image
from swe_srl.environments.runs import RUN_LABEL, run_state


@dataclass(frozen=True, slots=True)
class Reaped:
    """What was removed, and how many things belong to runs that cannot be judged from here."""

    containers: tuple[str, ...]
    images: tuple[str, ...]
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """What `swe-srl env reap --json` prints."""
        return asdict(self)


def reap(client: docker.DockerClient) -> Reaped:
    """Remove containers and temporary images whose run is dead. Raises UserError where the daemon fails."""
    containers, images, unknown = [], [], 0
    with docker_errors("removing what dead runs left"):
        for container in client.containers.list(all=True, filters={"label": RUN_LABEL}, ignore_removed=True):
            state = run_state(container.labels.get(RUN_LABEL, ""))
            unknown += state == "unknown"
            if state == "dead":
                remove_container(container)
                containers.append(str(container.id))
        for image in client.api.images(filters={"label": [TEMPORARY_LABEL, RUN_LABEL]}):
            state = run_state(image["Labels"][RUN_LABEL])
            unknown += state == "unknown"
            if state == "dead":
                for name in image["RepoTags"] or ():  # one without a name goes with the last that is built on it
                    remove_image(client, name)
                    images.append(str(name))
    return Reaped(tuple(containers), tuple(images), unknown)


def connect_and_reap() -> docker.DockerClient:
    """A client of the daemon, after removing what dead runs left in it."""
    client = connect()
    reap(client)
    return client
