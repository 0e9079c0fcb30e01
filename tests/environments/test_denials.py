"""Each denial of a real sandbox, by trying to break it."""

from __future__ import annotations

import platform
import uuid

import pytest
from containers import SMALL, exists, said
from docker import DockerClient

from swe_srl.environments.docker import DockerSandbox


def test_no_network(shared: DockerSandbox) -> None:
    assert said(shared, "ls /sys/class/net") == "lo"
    for address in ("1.1.1.1", "172.17.0.1", "169.254.169.254"):
        result = shared.execute(f"exec 3<>/dev/tcp/{address}/80", timeout=20)
        assert result.returncode == 1
        assert "Network is unreachable" in result.output
    assert shared.execute("getent hosts example.org", timeout=20).returncode == 2
    assert shared.execute("pip download iniconfig --timeout 2 --retries 0", timeout=60).returncode != 0


def test_no_capabilities(shared: DockerSandbox) -> None:
    status = dict(line.split(":\t") for line in said(shared, "cat /proc/self/status").splitlines() if line.startswith("Cap"))
    assert status == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    for command in (
        "touch /tmp/mine && chown 1000 /tmp/mine",
        "mount -t tmpfs none /mnt",
        "unshare -m true",
        "mknod /tmp/disk b 8 0",
        "chroot / true",
        "date -s 2020-01-01",
        "hostname other",
        "echo 1 > /proc/sys/kernel/panic",
        "echo 1 > /proc/sys/vm/drop_caches",
    ):
        result = shared.execute(command, timeout=20)
        assert result.returncode != 0, command
        assert any(words in result.output for words in ("not permitted", "denied", "Read-only file system", "must be root")), (
            result.output
        )


def test_no_new_privileges(shared: DockerSandbox) -> None:
    assert said(shared, "grep NoNewPrivs /proc/self/status") == "NoNewPrivs:\t1"


_SPAWN = """
import os, signal, time
children = []
try:
    for _ in range(600):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except BlockingIOError as error:
    print(len(children), error.strerror)
if {kill}:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


def test_no_more_processes_than_the_limit(shared: DockerSandbox) -> None:
    shared.write_file("/tmp/spawn.py", _SPAWN.format(kill=True).encode())
    count, reason = said(shared, "python3 /tmp/spawn.py").split(maxsplit=1)
    assert 450 < int(count) < 512
    assert reason == "Resource temporarily unavailable"
    assert said(shared, "echo usable") == "usable"


def test_processes_left_behind_at_the_limit_are_the_sandbox_s_loss_only(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image, SMALL) as sandbox:
        sandbox.write_file("/tmp/spawn.py", _SPAWN.format(kill=False).encode())
        sandbox.execute("python3 /tmp/spawn.py", timeout=20)
        assert sandbox.execute("ls | cat", timeout=5).returncode != 0
    assert not exists(client, sandbox)


def test_no_more_memory_than_the_limit(small: DockerSandbox) -> None:
    result = small.execute("python3 -c 'x = bytearray(200 * 1024**2); print(len(x))'", timeout=20)
    assert result.returncode == 137
    assert "209715200" not in result.output
    assert said(small, "python3 -c 'x = bytearray(20 * 1024**2); print(len(x))'") == "20971520"


def test_no_larger_file_than_the_limit(small: DockerSandbox) -> None:
    assert said(small, "head -c 1048576 /dev/zero > /tmp/fits; wc -c < /tmp/fits; rm /tmp/fits") == "1048576"
    result = small.execute("head -c 1048577 /dev/zero > /tmp/large", timeout=20)
    assert result.returncode == 153  # SIGXFSZ
    assert said(small, "wc -c < /tmp/large; rm /tmp/large") == "1048576"


def test_no_more_open_files_than_the_limit(small: DockerSandbox) -> None:
    result = small.execute("python3 -c 'f = [open(\"/dev/null\") for _ in range(100)]'", timeout=20)
    assert result.returncode == 1
    assert "Too many open files" in result.output


def test_nothing_of_the_host(client: DockerClient, base_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"secret{uuid.uuid4().hex}"
    monkeypatch.setenv("SWE_SRL_TEST_SECRET", secret)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://{secret}@localhost/simple")
    with DockerSandbox.start(client, base_image) as sandbox:
        for session in (False, True):
            seen = sandbox.execute("env; cat /proc/1/environ", timeout=20, session=session).output
            assert "SWE_SRL_TEST_SECRET" not in seen
            assert secret not in seen
        names = {line.partition("=")[0] for line in said(sandbox, "env").splitlines()}
        assert names <= {"PATH", "HOSTNAME", "HOME", "PWD", "SHLVL", "_"}
        assert said(sandbox, "find / -xdev -name 'docker*.sock' 2>/dev/null; ls /run/docker.sock 2>/dev/null || true") == ""
        assert said(sandbox, "hostname") == "testbed"
        assert platform.node() not in said(sandbox, "cat /etc/hostname /etc/hosts /proc/sys/kernel/hostname")
        assert sandbox.container.attrs["HostConfig"]["Binds"] is None
        mounts = [line.split()[4] for line in said(sandbox, "cat /proc/self/mountinfo").splitlines()]
        of_docker = {"/", "/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/usr/sbin/docker-init", "/sbin/docker-init"}
        assert {mount for mount in mounts if not mount.startswith(("/proc", "/sys", "/dev"))} <= of_docker
