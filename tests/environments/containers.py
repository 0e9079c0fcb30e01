"""Asking sandboxes."""

from __future__ import annotations

from docker import DockerClient
from docker.errors import NotFound

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.sandbox import Limits

SMALL = Limits(memory_bytes=64 * 1024**2, pids=40, file_bytes=1024**2, open_files=64, output_bytes=1000, cpus=1)
"""Limits that are quickly reached."""


def said(sandbox: DockerSandbox, command: str, timeout: float = 20) -> str:
    """What a command that succeeds prints, without white space around it."""
    result = sandbox.execute(command, timeout=timeout)
    assert result.returncode == 0, result.output
    return result.output.strip()


def exists(client: DockerClient, sandbox: DockerSandbox) -> bool:
    """Whether the daemon still has its container."""
    try:
        client.containers.get(sandbox.container.id)
    except NotFound:
        return False
    return True
