"""Keeping what images take on disk under a limit: the ones not used for longest go first.

Invariant: an image that a container uses, or that another image of this project stands on, is never removed; base images are
not touched. What is removed is built again when it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError

from swe_srl.cache import cache_folder
from swe_srl.environments.docker import docker_errors
from swe_srl.environments.podman import is_podman
from swe_srl.errors import UserError

PRUNED = ("swe-srl/task:", "swe-srl/layer:", "swe-srl/snapshot:")
"""Repositories whose images can be made again."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, and what is left."""

    removed: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    """Of the images of `PRUNED` and what they stand on, shared layers once, base images not counted."""


def note_use(tag: str) -> None:
    """Remember that an image was used now."""
    (cache_folder("images") / _file_name(tag)).touch()


def prune_images(client: docker.DockerClient, max_bytes: int, repositories: tuple[str, ...] = PRUNED) -> Pruned:
    """Remove images of these repositories until the rest of them take at most `max_bytes`, or nothing more can go."""
    if is_podman(client):
        raise UserError("Podman does not tell which image stands on which: remove images with `podman image prune` instead")
    removed: list[str] = []
    refused: set[str] = set()
    with docker_errors("pruning images"):
        images = client.api.images(all=True)
        before = after = _size(images, repositories)
        while after > max_bytes:
            tag = _oldest(images, repositories, refused | _used(client))
            if tag is None:
                break
            try:
                client.images.remove(tag)
                removed.append(tag)
                (cache_folder("images") / _file_name(tag)).unlink(missing_ok=True)
            except APIError as error:
                if error.status_code != 409:  # in use since we looked
                    raise
                refused.add(tag)
            images = client.api.images(all=True)
            after = _size(images, repositories)
    return Pruned(tuple(removed), before, after)


def _oldest(images: Sequence[Mapping[str, Any]], repositories: tuple[str, ...], kept: set[str]) -> str | None:
    """The image used longest ago among those that nothing needs; where none was noted, the one made first."""
    parents = {image["ParentId"] for image in images}
    free = [
        (_last_use(tag, image["Created"]), tag)
        for image in images
        if image["Id"] not in kept and image["Id"] not in parents
        for tag in image["RepoTags"] or ()
        if tag.startswith(repositories) and tag not in kept
    ]
    return min(free)[1] if free else None


def _last_use(tag: str, created: float) -> float:
    noted = cache_folder("images") / _file_name(tag)
    return max(created, noted.stat().st_mtime) if noted.exists() else created


def _used(client: docker.DockerClient) -> set[str]:
    """Ids of images that some container was made from, running or not."""
    return {container["ImageID"] for container in client.api.containers(all=True)}


def _size(images: Sequence[Mapping[str, Any]], repositories: tuple[str, ...]) -> int:
    by_id = {image["Id"]: image for image in images}
    counted: dict[str, int] = {}
    for image in images:
        if any(tag.startswith(repositories) for tag in image["RepoTags"] or ()):
            at = image["Id"]
            while (parent := by_id[at]["ParentId"]) in by_id and at not in counted:
                counted[at] = by_id[at]["Size"] - by_id[parent]["Size"]
                at = parent
    return sum(counted.values())


def _file_name(tag: str) -> str:
    return tag.replace("/", "+")
