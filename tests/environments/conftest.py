"""Sandboxes that a module's tests share, and tiny tasks whose images take a second to build: a local folder, no setup."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from containers import SMALL
from docker import DockerClient
from tiny import FILES, MakeTask

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.image import REPOSITORY
from swe_srl.environments.task import Task, task_from_row


@pytest.fixture(scope="module")
def shared(client: DockerClient, base_image: str) -> Iterator[DockerSandbox]:
    """One sandbox for tests that leave nothing behind."""
    with DockerSandbox.start(client, base_image) as started:
        yield started


@pytest.fixture(scope="module")
def small(client: DockerClient, base_image: str) -> Iterator[DockerSandbox]:
    """One with limits that are quickly reached."""
    with DockerSandbox.start(client, base_image, SMALL) as started:
        yield started


@pytest.fixture
def make_task(tmp_path: Path, client: DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTask]:
    """A function that makes a task over a folder of files. Its images are removed after the test.

    Ids are new each time unless one is given, so that tests may run at the same time.
    """
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path / "cache"))
    names: set[str] = set()

    def make(files: Mapping[str, str] = FILES, **fields: Any) -> Task:
        name = str(fields.pop("id", f"tiny-{uuid.uuid4().hex[:12]}"))
        names.add(name)
        folder = tmp_path / f"source-{uuid.uuid4().hex[:12]}"
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        fields.setdefault("source", {"path": str(folder), "patches": fields.pop("patches", [])})
        return task_from_row({"id": name, **fields}, tmp_path)

    yield make
    for image in client.api.images(REPOSITORY):
        for tag in image["RepoTags"] or ():
            if tag.removeprefix(f"{REPOSITORY}:").rpartition("-")[0] in names:
                client.images.remove(tag, force=True)
