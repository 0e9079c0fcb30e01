"""A run that is killed leaves nothing after the next start; a living one keeps all it has.

Other tests may start at the same time, and remove what a dead run here has left before these do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from docker.errors import ImageNotFound, NotFound

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.reaper import connect_and_reap, reap
from swe_srl.environments.runs import RUN_ID, RUN_LABEL

_RUN = """
import json, sys, time
from swe_srl.environments.docker import DockerSandbox, connect
sandbox = DockerSandbox.start(connect(), sys.argv[1])
temporary, kept = sandbox.snapshot().image, sandbox.snapshot("run@0").image
print(json.dumps([sandbox.container.id, temporary, kept]), flush=True)
sandbox.execute("sleep 600", timeout=600)
"""


class _Run:
    """Another process with a sandbox and two snapshots."""

    def __init__(self, image: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", _RUN, image], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.container, self.temporary, self.kept = json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _has_container(client: DockerClient, name: str) -> bool:
    try:
        return client.containers.get(name) is not None
    except NotFound:
        return False


def _has_image(client: DockerClient, name: str) -> bool:
    try:
        return client.images.get(name) is not None
    except ImageNotFound:
        return False


@pytest.fixture
def killed(client: DockerClient, base_image: str) -> Iterator[_Run]:
    """A run that was killed by SIGKILL while a command ran in its sandbox."""
    run = _Run(base_image)
    time.sleep(0.5)
    run.kill()
    yield run
    for image in (run.temporary, run.kept):
        if _has_image(client, image):
            client.images.remove(image, force=True)


def test_a_killed_run_takes_its_sandbox_with_it(client: DockerClient, killed: _Run) -> None:
    """Without any reaper: its shell sees the connection end."""
    for _ in range(100):
        if not _has_container(client, killed.container):
            return
        time.sleep(0.1)
    pytest.fail("the container is still there")


def test_the_next_start_removes_temporary_images_and_keeps_the_others(client: DockerClient, killed: _Run) -> None:
    connect_and_reap()
    assert not _has_image(client, killed.temporary)
    assert _has_image(client, killed.kept)
    assert not _has_container(client, killed.container)


def test_a_sandbox_that_outlives_its_run_is_removed_by_the_command(client: DockerClient, base_image: str) -> None:
    """As one whose shell was stopped from inside, or that was never started."""
    code = (
        "import json, os, signal, sys\n"
        "from swe_srl.environments.docker import connect\n"
        "from swe_srl.environments.runs import RUN_ID, RUN_LABEL\n"
        "client = connect()\n"
        "labels = {RUN_LABEL: RUN_ID}\n"
        "left = [client.containers.create(sys.argv[1], ['true'], network_mode='none', labels=labels)]\n"
        "left += [client.containers.run(sys.argv[1], ['sleep', '600'], network_mode='none', labels=labels, detach=True)]\n"
        "print(json.dumps([container.id for container in left]), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, base_image], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    left = json.loads(done.stdout)
    command = [sys.executable, "-m", "swe_srl.cli", "env", "reap", "--json"]
    reaped = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[2]).stdout)
    assert set(reaped) == {"containers", "images", "unknown", "stuck"}
    assert not any(_has_container(client, name) for name in left)


def test_a_container_that_the_daemon_cannot_remove_holds_up_nobody(
    client: DockerClient, base_image: str, caplog: pytest.LogCaptureFixture
) -> None:
    run, other = _Run(base_image), _Run(base_image)
    shim = subprocess.run(["pgrep", "-f", f"containerd-shim.*-id {run.container}"], stdout=subprocess.PIPE, text=True, check=True)
    for process in map(int, shim.stdout.split()):
        os.kill(process, signal.SIGSTOP)  # so that it carries out nothing that the daemon asks of it
    try:
        run.kill()
        other.kill()
        begun = time.monotonic()
        reaped = reap(client, patience=8)
        assert time.monotonic() - begun < 30
        assert run.container in reaped.stuck
        assert run.container in caplog.text
        assert other.container not in reaped.stuck
    finally:
        for process in map(int, shim.stdout.split()):
            os.kill(process, signal.SIGCONT)
    end = time.monotonic() + 60
    while run.container in [container.id for container in client.containers.list(all=True, sparse=True)]:
        assert time.monotonic() < end
        reap(client)
        time.sleep(0.5)
    for image in (run.kept, other.kept):
        client.images.remove(image, force=True)


def test_nothing_of_a_living_run_is_touched(client: DockerClient, base_image: str, sandbox: DockerSandbox) -> None:
    other = _Run(base_image)
    try:
        temporary = sandbox.snapshot().image
        reap(client)
        assert sandbox.execute("echo alive", timeout=20).output == "alive\n"
        assert _has_container(client, other.container)
        assert all(_has_image(client, image) for image in (temporary, other.temporary, other.kept))
        client.images.remove(temporary)
    finally:
        other.kill()
        reap(client)
        client.images.remove(other.kept, force=True)


def test_what_cannot_be_judged_is_counted_and_stays(client: DockerClient, base_image: str) -> None:
    container = client.containers.create(base_image, ["true"], network_mode="none", labels={RUN_LABEL: f"{os.getpid()}-0a1b2c3d"})
    try:
        assert reap(client).unknown >= 1
        assert _has_container(client, container.id)
    finally:
        container.remove(force=True)
