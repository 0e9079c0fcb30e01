"""What a hostile command may try from inside: the clock, the processor, the kernel's doors, and paths that lead elsewhere."""

from __future__ import annotations

import json
import shlex
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import said
from docker import DockerClient
from tiny import MakeTask

from swe_srl.environments.docker import DockerSandbox, check_limits
from swe_srl.environments.image import build_image
from swe_srl.environments.sandbox import Limits, SandboxLost
from swe_srl.errors import UserError
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import ToolCall

REFUSED = ("not permitted", "denied", "Read-only", "No such file", "Input/output error", "No such device")


def _python(code: str) -> str:
    return f"python3 -c {shlex.quote(code)}"


# The kernel's doors

_SYSTEM_CALL = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
number, *arguments = map(int, sys.argv[1:])
buffer = ctypes.create_string_buffer(256)
done = libc.syscall(number, *[ctypes.byref(buffer) if word < 0 else ctypes.c_long(word) for word in arguments])
print(done, os.strerror(ctypes.get_errno()))
"""
_CALLS = {
    "mount": (165, -1, -1, -1, 0, 0),
    "pivot_root": (155, -1, -1),
    "setns of the first process's network": (308, 0, 0x40000000),
    "unshare a user namespace": (272, 0x10000000),
    "unshare a mount namespace": (272, 0x00020000),
    "unshare a network namespace": (272, 0x40000000),
    "unshare a time namespace": (272, 0x00000080),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0, 0),
    "init_module": (175, -1, 0, -1),
    "kexec_load": (246, 0, 0, 0, 0),
    "swapon": (167, -1, 0),
    "settimeofday": (164, -1, 0),
    "clock_settime": (227, 0, -1),
    "adjtimex that sets the time": (159, -1),
    "acct": (163, -1),
    "bpf": (321, 0, -1, 128),
    "add_key": (248, -1, -1, -1, 1, 0),
    "open_by_handle_at": (304, 0, -1, 0),
    "iopl": (172, 3),
    "userfaultfd": (323, 0),
    "perf_event_open": (298, -1, -1, -1, -1, 0),
}


@pytest.mark.parametrize("call", _CALLS)
def test_system_calls_that_reach_beyond_the_container(shared: DockerSandbox, call: str) -> None:
    if said(shared, "uname -m") != "x86_64":
        pytest.skip("the numbers are those of x86_64")
    words = " ".join(map(str, _CALLS[call]))
    if call.startswith("adjtimex"):  # its first word says what to set: reading alone is allowed
        code = _SYSTEM_CALL.replace("256)", "256); buffer[0] = 0x03; buffer[1] = 0x40")
    else:
        code = _SYSTEM_CALL
    status, _, reason = said(shared, f"{_python(code)} {words}").partition(" ")
    assert (status, reason) in (("-1", "Operation not permitted"), ("-1", "Function not implemented")), reason


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hostname",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/uevent_helper",
        "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "/sys/fs/cgroup/pids/pids.max",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/cgroup.procs",
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/mem",
        "/dev/kmsg",
        "/dev/sda",
        "/dev/vda",
        "/dev/kvm",
        "/dev/fuse",
        "/dev/rtc0",
    ],
)
def test_files_of_the_kernel_that_cannot_be_written(shared: DockerSandbox, path: str) -> None:
    """None is there, or none can be opened for writing; a plain file made in its place would be in the container."""
    code = f"import os\ntry:\n os.open({path!r}, os.O_WRONLY)\n print('open')\nexcept OSError as error:\n print(error.strerror)"
    assert any(reason in said(shared, _python(code)) for reason in REFUSED)


def test_files_of_the_kernel_that_tell_nothing(shared: DockerSandbox) -> None:
    for path in ("/proc/kcore", "/proc/timer_list", "/proc/keys", "/sys/firmware"):
        found = shared.execute(f"cat {path}/* {path} 2> /dev/null | head -c 100 | wc -c", timeout=20).output.strip()
        assert found == "0", path
    assert shared.execute("dmesg", timeout=20).returncode != 0


def test_system_calls_are_filtered(shared: DockerSandbox) -> None:
    assert said(shared, "grep '^Seccomp:' /proc/self/status") == "Seccomp:\t2"


# The clock


def test_the_clock_cannot_be_set(shared: DockerSandbox) -> None:
    before = time.time()
    set_it = _python("import time; time.clock_settime(time.CLOCK_REALTIME, 1e9)")
    for command in ("date -s 2001-01-01", set_it, "hwclock -w", "date -s @1 && true"):
        assert shared.execute(command, timeout=20).returncode != 0, command
    assert -5 < float(said(shared, "date +%s.%N")) - before < 60
    assert -5 < time.time() - before < 60


def test_a_time_out_does_not_depend_on_the_container_s_clock(sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new shell is started with a Python for which no time passes: the host counts the seconds."""
    monkeypatch.setattr("swe_srl.environments.docker._GRACE_SECONDS", 1.0)
    frozen = "import sys, time; time.monotonic = lambda: 0.0; exec(sys.argv[1])"
    wrapper = f"#!/bin/bash\nexec python3.11 -I -S -c {shlex.quote(frozen)} \"${{@: -1}}\"\n"
    sandbox.write_file("/usr/local/bin/fake", wrapper.encode())
    sandbox.execute("rm /usr/bin/python3; cp /usr/local/bin/fake /usr/bin/python3; chmod 755 /usr/bin/python3", timeout=20)
    sandbox.execute("kill -9 $PPID; sleep 5", timeout=20)
    assert sandbox.execute("echo here", timeout=20).output == "here\n"
    began = time.monotonic()
    result = sandbox.execute("echo before; sleep 60", timeout=1)
    assert (result.output, result.returncode, result.timed_out) == ("before\n", None, True)
    assert 1.9 < time.monotonic() - began < 15
    assert sandbox.execute("echo usable", timeout=20).output == "usable\n"


# The processor


def test_no_more_processor_time_than_the_limit(client: DockerClient, base_image: str) -> None:
    """Two that never rest, for three seconds, may have a fifth of one processor; nothing inside raises that."""
    spin = "end = __import__('time').monotonic() + 3\nwhile __import__('time').monotonic() < end: pass"
    with DockerSandbox.start(client, base_image, Limits(cpus=0.2)) as sandbox:
        for command in ("nice -n -20 true", "chrt -f 50 true", "renice -n -5 -p $$"):
            result = sandbox.execute(command, timeout=20)
            assert result.returncode != 0 or "Permission denied" in result.output, result.output
        began = time.monotonic()
        seen = said(sandbox, f"TIMEFORMAT='%U %S'; time {{ {_python(spin)} & {_python(spin)} & wait; }}", timeout=60)
        wall = time.monotonic() - began
    used = sum(map(float, seen.split()[-2:]))
    assert 0.1 < used < 0.2 * wall + 0.15


def test_a_daemon_that_would_not_keep_limits_is_refused(client: DockerClient) -> None:
    """As a rootless one on cgroup v1, which takes any limit with a warning."""
    check_limits(client.info())
    with pytest.raises(UserError, match=r"^the Docker daemon cannot limit .* \(it lacks MemoryLimit, PidsLimit\); a rootless one"):
        check_limits({**client.info(), "MemoryLimit": False, "PidsLimit": False})


# Paths that lead elsewhere


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file of the host that every path below aims at."""
    file = tmp_path / "host-file"
    file.write_text(f"of the host {uuid.uuid4().hex}\n")
    return file


def _ways(target: str) -> list[str]:
    return [
        target,
        f"/testbed/../../../../../..{target}",
        f"/proc/1/root{target}",
        f"/proc/self/cwd/../../..{target}",
        f"/proc/1/cwd/../..{target}",
        "/tmp/straight",
        "/tmp/folder/host-file",
        "/tmp/chain",
    ]


def _plant_links(sandbox: DockerSandbox, target: Path) -> None:
    sandbox.execute(
        f"mkdir -p /testbed; ln -s {target} /tmp/straight; ln -s {target.parent} /tmp/folder; ln -s straight /tmp/chain", timeout=20
    )


def test_files_are_read_and_written_inside_wherever_a_path_leads(sandbox: DockerSandbox, marker: Path) -> None:
    before = marker.read_bytes()
    _plant_links(sandbox, marker)
    for path in _ways(str(marker)):
        with pytest.raises(FileNotFoundError):
            sandbox.read_file(path)
    for number, path in enumerate(_ways(str(marker))):
        sandbox.write_file(path, b"of the container %d\n" % number)
        assert sandbox.read_file(str(marker)) == b"of the container %d\n" % number
        assert sandbox.read_file(path) == b"of the container %d\n" % number
    assert marker.read_bytes() == before
    assert [file.name for file in marker.parent.iterdir()] == [marker.name]


def test_a_link_that_changes_while_it_is_read(sandbox: DockerSandbox) -> None:
    """Back and forth between two files: what is read is one of them."""
    sandbox.write_file("/tmp/flip", b"while :; do ln -sfn /tmp/a /tmp/link; ln -sfn /tmp/b /tmp/link; done\n")
    sandbox.write_file("/tmp/a", b"a" * 10_000)
    sandbox.write_file("/tmp/b", b"b" * 10_000)
    sandbox.execute("ln -s a /tmp/link; bash /tmp/flip > /dev/null 2>&1 &", timeout=20)
    assert {sandbox.read_file("/tmp/link") for _ in range(20)} <= {b"a" * 10_000, b"b" * 10_000}


def test_what_is_no_plain_file_is_read_in_bounded_time_and_size(
    client: DockerClient, base_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swe_srl.environments.docker._FILE_SECONDS", 1.0)
    with DockerSandbox.start(client, base_image, Limits(output_bytes=1000)) as sandbox:
        sandbox.execute("mkfifo /tmp/pipe; ln -s /dev/zero /tmp/zero; ln -s loop /tmp/loop", timeout=20)
        for path, reason in (("/tmp/pipe", "time-out"), ("/tmp/zero", "time-out"), ("/tmp/loop", "Too many levels")):
            with pytest.raises(FileNotFoundError, match=f"{path} in the sandbox: .*{reason}"):
                sandbox.read_file(path)
        with pytest.raises(OSError, match="/tmp/pipe in the sandbox: .*time-out"):
            sandbox.write_file("/tmp/pipe", b"x" * 1_000_000)
        assert sandbox.execute("echo usable", timeout=20).output == "usable\n"


def test_names_of_files_are_only_names(sandbox: DockerSandbox) -> None:
    for name in ("$(touch /tmp/owned)", "`touch /tmp/owned`", "; touch /tmp/owned", "-rf", "a\nb/c\n", "é ☃", "'\"\\"):
        path = f"/tmp/names/{name}/{name.strip('/')}" if "/" not in name else f"/tmp/names/{name}"
        sandbox.write_file(path, name.encode())
        assert sandbox.read_file(path) == name.encode()
    assert sandbox.execute("ls /tmp/owned; ls /tmp", timeout=20).output.endswith("/tmp/owned': No such file or directory\nnames\n")


# The shell's own surroundings


@pytest.mark.parametrize(
    "attack",
    [
        "(cat /proc/$PPID/fd/0 > /tmp/stolen) > /dev/null 2>&1 & sleep 0.2",
        "rm -rf /dev/shm/*; head -c 70M /dev/zero > /dev/shm/full",
        "echo /tmp/none.so > /etc/ld.so.preload",
        "mkdir /tmp/names; cd /tmp/names; touch $'\\xff\\xfe' $'a\\nb'",
        "ulimit -n 4; ulimit -v 1000; ulimit -u 1",
        "exec 0<&- 1>&- 2>&-; rm -rf /proc/self/fd/*",
        "for p in /proc/[0-9]*; do kill -STOP ${p#/proc/} 2> /dev/null; done; sleep 5",
    ],
)
def test_the_next_command_runs_after(sandbox: DockerSandbox, attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swe_srl.environments.docker._GRACE_SECONDS", 1.0)
    sandbox.execute("cd /usr; export KEPT=1", timeout=20, session=True)
    sandbox.execute(attack, timeout=2)
    # One of these may have its request stolen: the thief goes with the shell from which it stole.
    all(sandbox.execute("true", timeout=2).returncode == 0 for _ in range(12))
    result = sandbox.execute("echo usable; exit 3", timeout=20)
    assert (result.output.splitlines()[-1], result.returncode) == ("usable", 3)
    assert sandbox.execute("echo $PWD $KEPT", timeout=20, session=True).output.endswith("/usr 1\n")


def test_what_a_container_says_of_its_end_has_no_terminal_codes(sandbox: DockerSandbox) -> None:
    script = "#!/bin/sh\nprintf '\\033]0;owned\\007 \\033[31mred' >&2\n"
    sandbox.write_file("/tmp/fake", script.encode())
    replace = "chmod 755 /tmp/fake; rm /usr/bin/python3; cp /tmp/fake /usr/bin/python3; kill -9 $PPID; sleep 5"
    with pytest.raises(SandboxLost, match=r"^the container no longer answers: \?]0;owned\? \?\[31mred$"):
        sandbox.execute(replace, timeout=20)


@pytest.fixture(scope="module")
def calls() -> dict[str, list[tuple[str, dict[str, object]]]]:
    """Each scaffold's ways to read and to write the file at PATH."""
    editor: list[tuple[str, dict[str, object]]] = [
        ("str_replace_editor", {"command": "view", "path": "PATH"}),
        ("str_replace_editor", {"command": "create", "path": "PATH", "file_text": "written\n"}),
        ("str_replace_editor", {"command": "str_replace", "path": "PATH", "old_str": "of the", "new_str": "written"}),
        ("str_replace_editor", {"command": "insert", "path": "PATH", "insert_line": 0, "new_str": "written"}),
    ]
    windowed: list[tuple[str, dict[str, object]]] = [
        ("open", {"path": "PATH"}),
        ("create", {"filename": "PATH"}),
        ("search_file", {"search_term": "host", "file": "PATH"}),
    ]
    return {"swe-agent": editor, "openhands": editor[:1], "swe-agent-windowed": windowed, "swe-agent-windowed-0": windowed[1:]}


def test_the_tools_stay_inside_too(
    client: DockerClient, base_image: str, make_task: MakeTask, marker: Path, calls: dict[str, list[tuple[str, dict[str, object]]]]
) -> None:
    before = marker.read_bytes()
    with DockerSandbox.start(client, build_image(client, make_task()).tag) as sandbox:
        _plant_links(sandbox, marker)
        sandbox.execute(f"mkdir -p {marker.parent}", timeout=20)
        for name, ways in calls.items():
            scaffold = get_scaffold(name)
            for tool, arguments in ways:
                for path in _ways(str(marker))[1:6]:
                    call = ToolCall(tool, json.loads(json.dumps(arguments).replace("PATH", path)))
                    script = scaffold.command(call)
                    seen = sandbox.execute(script, timeout=20, session=True, env=scaffold.environment).output
                    assert before.decode().strip() not in seen, (name, tool, path)
                    assert "Traceback" not in seen, (name, tool, path, seen)
        found = sandbox.execute(f"cat {marker}", timeout=20)
        assert (found.returncode, "written" in found.output) == (0, True), "the calls did write, inside"
    assert marker.read_bytes() == before
    assert [file.name for file in marker.parent.iterdir() if file.name not in ("cache",) and "source-" not in file.name] == [marker.name]
