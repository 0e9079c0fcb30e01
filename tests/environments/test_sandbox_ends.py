"""How a real sandbox ends: it leaves nothing, and whoever used it is told."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import pytest
from containers import exists, said
from docker import DockerClient
from docker.errors import NotFound
from docker.transport import UnixHTTPAdapter

from swe_srl.environments.docker import RUN_ID, RUN_LABEL, DockerSandbox, connect, pool_of_containers
from swe_srl.environments.sandbox import SandboxLost
from swe_srl.errors import UserError


def test_leaving_removes_the_container_also_after_an_error(client: DockerClient, base_image: str) -> None:
    with contextlib.suppress(RuntimeError), DockerSandbox.start(client, base_image) as sandbox:
        assert exists(client, sandbox)
        assert sandbox.container.labels[RUN_LABEL] == RUN_ID
        raise RuntimeError("broken")
    assert not exists(client, sandbox)
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxLost):
        sandbox.execute("true", timeout=5)


def test_leaving_ends_what_is_running(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image) as sandbox:
        sandbox.execute("setsid sleep 60 & true", timeout=5)
    assert not exists(client, sandbox)


def test_an_image_that_is_not_there(client: DockerClient) -> None:
    with pytest.raises(UserError, match="image swe-srl/task:none: image not found"):
        DockerSandbox.start(client, "swe-srl/task:none")


def test_a_container_killed_from_outside_is_lost(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image) as sandbox:
        client.api.kill(sandbox.container.id)
        with pytest.raises(SandboxLost, match="the container no longer answers"):
            sandbox.execute("true", timeout=5)
        with pytest.raises(SandboxLost):
            sandbox.read_file("/etc/hostname")
    assert not exists(client, sandbox)


@pytest.mark.parametrize("command", ["sleep 60", "kill -9 -1; sleep 60"])
def test_a_container_that_ends_in_the_middle_of_a_command_is_lost(client: DockerClient, base_image: str, command: str) -> None:
    """Not taken for a command that was killed."""
    with DockerSandbox.start(client, base_image) as sandbox:
        killer = threading.Timer(1.0, client.api.kill, [sandbox.container.id])
        if command == "sleep 60":
            killer.start()
        with pytest.raises(SandboxLost, match="the container no longer answers"):
            sandbox.execute(command, timeout=30)
    assert not exists(client, sandbox)


def test_a_container_removed_by_another_is_lost_and_closes(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image) as sandbox:
        client.api.remove_container(sandbox.container.id, force=True)
        with pytest.raises(SandboxLost):
            sandbox.execute("true", timeout=5)


def test_a_daemon_that_has_gone_is_said(base_image: str) -> None:
    gone = connect()
    gone.api.mount("http+docker://", UnixHTTPAdapter("http+unix:///nonexistent.sock", 5))
    with pytest.raises(UserError, match=rf"image {base_image}: the Docker daemon failed \(.*\); is it still running\?"):
        DockerSandbox.start(gone, base_image)


@pytest.mark.parametrize("moment", [0.0, 0.3])
def test_a_pool_that_is_interrupted_leaves_no_container_and_waits_for_no_work(
    client: DockerClient, base_image: str, moment: float
) -> None:
    """Also where a thread was just about to start its container."""
    started: list[DockerSandbox] = []

    def work() -> None:
        with DockerSandbox.start(client, base_image) as sandbox:
            started.append(sandbox)
            sandbox.execute("sleep 60", timeout=60)

    begun = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt), pool_of_containers(client, 2) as pool:
        for _ in range(4):
            pool.submit(work)
        time.sleep(moment)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 15
    assert len(started) <= 2
    assert not any(exists(client, sandbox) for sandbox in started)


def test_docker_host_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    with pytest.raises(UserError, match=r"no Docker daemon answers .*swe-srl env docker"):
        connect()


def test_connections_are_neither_closed_in_use_nor_kept_for_every_container(base_image: str) -> None:
    client = connect()

    def opened() -> int:
        return sum(os.readlink(link).startswith("socket:") for link in Path("/proc/self/fd").iterdir() if link.is_symlink())

    with DockerSandbox.start(client, base_image) as sandbox:
        for number in range(30):
            with pytest.raises(NotFound):
                client.containers.get(f"none-{number}")
        assert said(sandbox, "echo still here") == "still here"
    before = opened()
    for _ in range(2):
        with DockerSandbox.start(client, base_image) as sandbox:
            said(sandbox, "true")
    assert opened() == before
