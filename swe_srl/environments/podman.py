"""Where Podman's answer to Docker's API differs from Docker's (tried with Podman 4.3.1).

Invariant: callers speak to one daemon; what Podman would drop without a word is said in its own way here, or refused.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import docker
from docker.models.containers import Container

from swe_srl.errors import UserError


@functools.lru_cache(maxsize=8)
def is_podman(client: docker.DockerClient) -> bool:
    """Whether the daemon is Podman's."""
    return any(part.get("Name") == "Podman Engine" for part in client.version().get("Components") or ())


def commit(container: Container, image: str, config: Mapping[str, Any]) -> None:
    """Make an image of a container's files with these settings: Labels, Env, WorkingDir. It starts bash.

    Raises UserError for a value that Podman cannot take: it ignores settings that come as Docker's do, and takes them as lines.
    """
    settings = {**config, "Cmd": ["bash"], "Entrypoint": []}
    options: dict[str, Any] = {"conf": settings}
    if is_podman(container.client):  # it came from a client
        lines = [f"LABEL {name}={value}" for name, value in config.get("Labels", {}).items()]
        lines += [f"ENV {entry}" for entry in config.get("Env", ())]
        lines += [f"WORKDIR {config['WorkingDir']}"] if config.get("WorkingDir") else []
        if broken := [line for line in lines if "\n" in line]:
            raise UserError(f"{image}: Podman takes no line ends in an image's settings: {broken[0]!r}; use Docker, or other values")
        options = {"changes": [*lines, 'CMD ["bash"]', "ENTRYPOINT []"]}
    repository, _, tag = image.rpartition(":")
    container.commit(repository, tag, **options)


def image_names(image: Mapping[str, Any]) -> list[str]:
    """The names of a row of the daemon's list of images, as this project gives them: Podman adds where they are from."""
    return [str(name).removeprefix("localhost/").removeprefix("docker.io/") for name in image["RepoTags"] or ()]
