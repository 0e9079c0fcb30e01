"""What a sandbox may write in all: measured from outside where the daemon's storage has no quotas."""

from __future__ import annotations

import pytest
from docker import DockerClient
from docker.errors import NotFound

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.sandbox import Limits, SandboxLost

MB = 1024**2
TIGHT = Limits(disk_bytes=40 * MB, file_bytes=16 * MB)
FILL = "for i in {1..%d}; do head -c 8M /dev/zero > /tmp/fill$i || exit 5; done; echo all written; sleep 30"


def _has_quota(client: DockerClient) -> bool:
    from swe_srl.environments.disk import disk_guard

    return bool(disk_guard(client)._has_quota)


@pytest.mark.parametrize("where", ["command", "background", "session"])
def test_a_sandbox_that_fills_the_disk_is_ended(client: DockerClient, base_image: str, where: str) -> None:
    """Many files, each under the limit of one."""
    with DockerSandbox.start(client, base_image, TIGHT) as sandbox:
        if _has_quota(client):
            assert sandbox.execute(FILL % 12, timeout=25).returncode == 5
            return
        with pytest.raises(SandboxLost, match=r"the sandbox was killed: it wrote \d+ bytes into its files, and may write 41943040"):
            if where == "background":
                sandbox.execute(f"({FILL % 12}) > /dev/null 2>&1 &", timeout=20)
                sandbox.execute("sleep 25", timeout=26)
            else:
                sandbox.execute(FILL % 12, timeout=26, session=where == "session")
    with pytest.raises(NotFound):
        client.containers.get(sandbox.container.id)


def test_what_it_deletes_again_does_not_count(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image, TIGHT) as sandbox:
        for _ in range(3):
            assert sandbox.execute("head -c 16M /dev/zero > /tmp/one; head -c 16M /dev/zero > /tmp/two", timeout=20).returncode == 0
            assert sandbox.execute("sleep 1; rm /tmp/one /tmp/two", timeout=20).returncode == 0


def test_its_neighbour_goes_on(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image) as neighbour:
        neighbour.execute("head -c 64M /dev/zero > /tmp/large", timeout=20)
        with DockerSandbox.start(client, base_image, TIGHT) as sandbox:
            if not _has_quota(client):
                with pytest.raises(SandboxLost, match="it wrote"):
                    sandbox.execute(FILL % 12, timeout=26)
        assert neighbour.execute("stat -c %s /tmp/large", timeout=20).output == "67108864\n"


def test_the_first_process_s_output_is_kept_nowhere(client: DockerClient, sandbox: DockerSandbox) -> None:
    """It is within reach of any command; a daemon's log of it would grow on the host's disk without limit."""
    assert sandbox.execute("head -c 1M /dev/zero > /proc/1/fd/1; echo more >> /proc/1/fd/2", timeout=20).returncode == 0
    assert sandbox.container.attrs["HostConfig"]["LogConfig"]["Type"] == "none"
