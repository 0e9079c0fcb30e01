"""Images go by when they were used last, and never while something needs them. Each test has repositories of its own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from swe_srl.cache import cache_folder
from swe_srl.environments.runs import RUN_ID, RUN_LABEL
from swe_srl.environments.prune import note_use, prune_images

MB = 1_000_000
MakeImage = Callable[..., str]


@pytest.fixture
def repository(client: DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path))
    name = f"test/prune-{uuid.uuid4().hex[:12]}"
    yield name
    for image in client.api.images(name):
        client.images.remove(image["Id"], force=True)


@pytest.fixture
def make(client: DockerClient, base_image: str, repository: str) -> MakeImage:
    """Commit an image that adds some megabytes to another, used so many days ago."""

    def make(name: str, megabytes: int, days: int, parent: str = base_image) -> str:
        write = ["sh", "-c", f"head -c {megabytes * MB} /dev/zero > /{name}"]
        container = client.containers.create(parent, write, network_mode="none", labels={RUN_LABEL: RUN_ID})
        try:
            container.start()
            container.wait(timeout=60)
            container.commit(repository, name)
        finally:
            container.remove(force=True)
        tag = f"{repository}:{name}"
        note_use(tag)
        # In the future, because a use cannot have been before the image was made.
        moment = os.stat(cache_folder("images")).st_mtime + 1e8 - days * 86400
        os.utime(cache_folder("images") / tag.replace("/", "+"), (moment, moment))
        return tag

    return make


def _left(client: DockerClient, repository: str) -> set[str]:
    return {tag.rpartition(":")[2] for image in client.api.images(repository) for tag in image["RepoTags"]}


def test_the_one_used_longest_ago_goes_first_until_the_rest_fit(
    client: DockerClient, repository: str, make: MakeImage
) -> None:
    make("old", 3, days=9)
    make("new", 2, days=1)
    make("older", 4, days=20)
    done = prune_images(client, 6 * MB, (repository,))
    assert done.removed == (f"{repository}:older",)
    assert (done.bytes_before, done.bytes_after) == (9 * MB, 5 * MB)
    assert _left(client, repository) == {"old", "new"}
    assert prune_images(client, 6 * MB, (repository,)).removed == ()


def test_what_others_stand_on_is_counted_once_and_stays_as_long_as_they_do(
    client: DockerClient, repository: str, make: MakeImage
) -> None:
    trunk = make("trunk", 3, days=30)
    make("left", 1, days=2, parent=trunk)
    make("right", 2, days=1, parent=trunk)
    done = prune_images(client, 5 * MB, (repository,))
    assert (done.removed, done.bytes_before, done.bytes_after) == ((f"{repository}:left",), 6 * MB, 5 * MB)
    done = prune_images(client, 0, (repository,))
    assert (done.removed, done.bytes_after) == ((f"{repository}:right", trunk), 0)


def test_one_that_a_container_was_made_from_stays(client: DockerClient, repository: str, make: MakeImage) -> None:
    used = make("used", 3, days=30)
    make("free", 1, days=1)
    container = client.containers.create(used, ["true"], network_mode="none", labels={RUN_LABEL: RUN_ID})
    try:
        done = prune_images(client, 0, (repository,))
    finally:
        container.remove(force=True)
    assert (done.removed, done.bytes_after) == ((f"{repository}:free",), 3 * MB)
    assert _left(client, repository) == {"used"}


def test_images_of_other_repositories_are_not_touched(client: DockerClient, repository: str, make: MakeImage) -> None:
    make("mine", 1, days=1)
    assert prune_images(client, 0, (f"{repository}-other",)).removed == ()
    assert _left(client, repository) == {"mine"}
