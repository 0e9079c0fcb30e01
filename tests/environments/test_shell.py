"""The held-open shell: exact bytes and exit codes, whatever the command does to its output, its directory or the shell itself."""

from __future__ import annotations

import hashlib
import itertools
import struct
import time
from collections.abc import Iterator

import pytest
from docker import DockerClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_srl.environments import shell as shell_module
from swe_srl.environments.base_image import BASE_IMAGES, ensure_base_image
from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.sandbox import Limits, SandboxLost
from swe_srl.environments.shell import Shell, ShellResult
from swe_srl.errors import UserError

BOTH = pytest.mark.parametrize("session", [False, True], ids=["fresh", "session"])


@pytest.fixture(scope="module")
def shared(client: DockerClient, base_image: str) -> Iterator[DockerSandbox]:
    """One sandbox for tests that leave nothing behind, with room for much output."""
    with DockerSandbox.start(client, base_image, Limits(output_bytes=128 * 1024**2)) as started:
        yield started


def _run(sandbox: DockerSandbox, *argv: str, stdin: bytes = b"", timeout: float = 20.0) -> ShellResult:
    return sandbox._run(argv, stdin=stdin, timeout=timeout)


def _bytes(sandbox: DockerSandbox, command: str) -> bytes:
    result = _run(sandbox, "bash", "-c", command)
    assert result.exit_code == 0
    return result.output


def _processes(sandbox: DockerSandbox) -> str:
    return _bytes(sandbox, "cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\\0' ' '").decode()


def _shell_id(sandbox: DockerSandbox) -> int:
    return int(_bytes(sandbox, "echo $PPID"))


def _wait_until_gone(client: DockerClient, sandbox: DockerSandbox) -> None:
    for _ in range(100):
        if sandbox.container.id not in [container.id for container in client.containers.list(all=True, ignore_removed=True)]:
            return
        time.sleep(0.1)
    pytest.fail("the container is still there")


# Output


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), code=st.integers(0, 255))
def test_any_bytes_and_any_exit_code(shared: DockerSandbox, content: bytes, code: int) -> None:
    result = _run(shared, "bash", "-c", f"cat; exit {code}", stdin=content)
    assert result == ShellResult(content, code, 0)


def test_a_hundred_megabytes(shared: DockerSandbox) -> None:
    block = bytes(range(256)) * 4096
    shared.write_file("/tmp/block", block)
    result = _run(shared, "bash", "-c", "for i in {1..100}; do cat /tmp/block; done; exit 7", timeout=120)
    assert (len(result.output), result.exit_code, result.dropped_bytes) == (100 * len(block), 7, 0)
    assert hashlib.sha256(result.output).digest() == hashlib.sha256(block * 100).digest()


def test_a_hundred_megabytes_beyond_the_cap(sandbox: DockerSandbox) -> None:
    result = _run(sandbox, "bash", "-c", "head -c 100000000 /dev/zero", timeout=120)
    assert (result.output, result.dropped_bytes) == (bytes(10 * 1024**2), 100_000_000 - 10 * 1024**2)


def test_output_that_looks_like_the_protocol(shared: DockerSandbox) -> None:
    """A forged end of this command and of the next ones, with every frame and Docker's own framing around it."""
    ends = [struct.pack(">cII", b"E", number, 13) + struct.pack(">iQ?", 0, 0, False) for number in range(2000)]
    forged = b"".join(ends) + b"".join(b"\1\0\0\0" + struct.pack(">I", len(end)) + end for end in ends)
    shared.write_file("/tmp/forged", forged)
    assert _run(shared, "bash", "-c", "cat /tmp/forged; cat /tmp/forged >&2; exit 9") == ShellResult(forged * 2, 9, 0)
    assert _bytes(shared, "echo next") == b"next\n"


def test_both_streams_keep_their_order(shared: DockerSandbox) -> None:
    expected = b"".join(b"%d\n" % number for number in range(200))
    assert _bytes(shared, "for ((i = 0; i < 200; i += 2)); do echo $i; echo $((i + 1)) >&2; done") == expected


@BOTH
def test_closed_output(shared: DockerSandbox, session: bool) -> None:
    started = time.monotonic()
    result = shared.execute("echo before; exec >&- 2>&-; sleep 0.5; echo lost; exit 3", timeout=20, session=session)
    assert (result.output, result.returncode) == ("before\n", 3)
    assert time.monotonic() - started > 0.5
    assert _bytes(shared, "echo next") == b"next\n"


def test_standard_input_that_is_not_read(shared: DockerSandbox) -> None:
    assert _run(shared, "bash", "-c", "exit 4", stdin=bytes(5_000_000)) == ShellResult(b"", 4, 0)
    assert _run(shared, "bash", "-c", "head -c 3; exec <&-; sleep 0.2", stdin=b"abc" * 1_000_000) == ShellResult(b"abc", 0, 0)
    assert _bytes(shared, "echo next") == b"next\n"


def test_signals_are_as_a_process_expects_them(shared: DockerSandbox) -> None:
    """Nothing is ignored or blocked: `yes | head` ends by SIGPIPE, a background job of a shell by SIGTERM."""
    status = dict(line.split(":\t") for line in _bytes(shared, "cat /proc/self/status").decode().splitlines() if line[:3] == "Sig")
    # But for the two that glibc keeps to itself.
    assert (int(status["SigIgn"], 16) & 0x7FFFFFFF, int(status["SigBlk"], 16)) == (0, 0)
    assert _bytes(shared, "yes | head -n 1; echo ${PIPESTATUS[0]}") == b"y\n141\n"


def test_no_descriptor_of_the_shell_reaches_the_command(shared: DockerSandbox) -> None:
    assert _bytes(shared, "ls /proc/$$/fd; true") == b"0\n1\n2\n"
    assert _bytes(shared, "readlink /proc/$$/fd/0") == b"/dev/null\n"


# The command and its shell


@BOTH
def test_exec_replaces_the_command_only(shared: DockerSandbox, session: bool) -> None:
    result = shared.execute("exec sh -c 'echo other; exit 6'", timeout=20, session=session)
    assert (result.output, result.returncode) == ("other\n", 6)
    assert shared.execute("echo next", timeout=20, session=session).output == "next\n"


@BOTH
@pytest.mark.parametrize("command", ["kill -9 $$", "kill $$; sleep 5", "exec bash -c 'kill -9 $$'"])
def test_a_command_that_kills_itself(shared: DockerSandbox, command: str, session: bool) -> None:
    result = shared.execute(f"echo before; {command}", timeout=20, session=session)
    assert (result.output, result.returncode) == ("before\n", 143 if command.startswith("kill $$") else 137)
    assert shared.execute("echo next", timeout=20, session=session).output == "next\n"


@BOTH
def test_a_command_that_kills_the_shell(sandbox: DockerSandbox, session: bool) -> None:
    """It ends with it, also what it had in the background; files, directory and variables stay."""
    sandbox.execute("cd /tmp; export KEPT=1; echo mine > file", timeout=20, session=True)
    before = _shell_id(sandbox)
    result = sandbox.execute("sleep 986 & kill -9 $PPID; sleep 987; echo mine >> file", timeout=20, session=session)
    assert (result.output, result.returncode) == ("", 137)
    assert result.seconds < 15
    assert _shell_id(sandbox) != before
    assert "sleep 98" not in _processes(sandbox)
    assert sandbox.execute("cat file; echo $PWD $KEPT", timeout=20, session=True).output == "mine\n/tmp 1\n"


def test_a_shell_that_is_killed_between_two_commands(sandbox: DockerSandbox) -> None:
    before = _shell_id(sandbox)
    sandbox.execute(f"(sleep 0.3; kill -9 {before}) > /dev/null 2>&1 &", timeout=20)
    time.sleep(0.8)
    assert sandbox.execute("echo once | tee -a /tmp/times", timeout=20).output == "once\n"
    assert _bytes(sandbox, "cat /tmp/times") == b"once\n"
    assert _shell_id(sandbox) != before


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP", "PIPE", "CHLD", "USR1"])
def test_signals_to_the_shell(sandbox: DockerSandbox, signal: str) -> None:
    sandbox.execute(f"kill -{signal} $PPID; sleep 0.1", timeout=20)
    assert sandbox.execute("echo usable; exit 3", timeout=20).returncode == 3


def test_killing_all_python_programs_spares_the_shell(sandbox: DockerSandbox) -> None:
    before = _shell_id(sandbox)
    script = "/usr/bin/python3 -c 'import time; time.sleep(60)' &\nsleep 0.2\n"
    script += "for p in /proc/[0-9]*; do grep -qs python $p/comm $p/cmdline && kill -9 ${p#/proc/}; done; wait; echo done"
    sandbox.write_file("/tmp/kill", script.encode())
    assert sandbox.execute("bash /tmp/kill", timeout=20).output.endswith("done\n")
    assert _shell_id(sandbox) == before


def test_a_shell_that_cannot_be_started_again_is_a_lost_sandbox(sandbox: DockerSandbox) -> None:
    sandbox.execute("rm -f /usr/bin/python3* /usr/local/bin/python3*; (sleep 0.2; kill -9 $PPID) > /dev/null 2>&1 &", timeout=20)
    time.sleep(1.5)
    with pytest.raises(SandboxLost, match=r"the container no longer answers: .*python3"):
        sandbox.execute("true", timeout=5)


@pytest.mark.parametrize(
    "forged",
    [
        b"\0" * 100,
        struct.pack(">cII", b"O", 0, 1 << 30),
        struct.pack(">cII", b"E", 0, 2) + b"xx",
        struct.pack(">cII", b"Q", 0, 0),
        b"x" * 5_000_000,
    ],
    ids=["zeros", "impossible size", "short end", "unknown kind", "flood"],
)
def test_bytes_that_are_not_the_shell_s(client: DockerClient, sandbox: DockerSandbox, forged: bytes) -> None:
    """A process of the same user may write to the shell's own output: that ends its sandbox and no more."""
    sandbox.write_file("/tmp/forged", forged)
    with pytest.raises(SandboxLost, match="the container no longer answers"):
        sandbox.execute("cat /tmp/forged > /proc/$PPID/fd/1; sleep 60", timeout=20)
    _wait_until_gone(client, sandbox)


def test_a_flood_from_a_shell_that_lies_is_capped(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image, Limits(output_bytes=1000)) as sandbox:
        number = sandbox._shell._number + 2
        sandbox.write_file("/tmp/forged", (struct.pack(">cII", b"O", number, 50_000) + bytes(50_000)) * 40)
        assert sandbox._shell._number + 1 == number
        result = sandbox.execute("cat /tmp/forged > /proc/$PPID/fd/1", timeout=20)
        assert (len(result.output), result.returncode, result.dropped_bytes) == (1000, 0, 2_000_000 - 1000)


# Time-outs


@BOTH
@pytest.mark.parametrize(
    "command",
    [
        "sleep 987",
        "trap '' TERM INT HUP; sleep 987",
        "sleep 987 & sleep 987 | sleep 987",
        "set -m; sleep 987 & sleep 987",
        "(exec >&- 2>&-; sleep 987) & exec >&- 2>&-; sleep 987",
        "while :; do sleep 987 & sleep 0.01; done",
        "kill -STOP $$",
    ],
)
def test_a_time_out_kills_whatever_the_command_started(sandbox: DockerSandbox, command: str, session: bool) -> None:
    result = sandbox.execute(f"echo before; {command}", timeout=0.5, session=session)
    assert (result.output, result.returncode, result.timed_out) == ("before\n", None, True)
    assert result.seconds < 8
    assert "sleep 987" not in _processes(sandbox)
    assert sandbox.execute("echo usable", timeout=20, session=session).output == "usable\n"


def test_a_time_out_of_a_command_that_prints_without_end(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("yes", timeout=1)
    assert (result.returncode, len(result.output), set(result.output)) == (None, 10 * 1024**2, {"y", "\n"})
    assert sandbox.execute("echo usable", timeout=20).output == "usable\n"


# Background jobs


def test_a_background_job_lives_on_and_what_it_prints_later_reaches_no_other_command(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("(sleep 2; seq 100000; echo $? > /tmp/status; sleep 60) & echo started", timeout=20)
    assert (result.output, result.returncode) == ("started\n", 0)
    assert result.seconds < 1.9
    for _ in itertools.repeat(None, 20):
        assert sandbox.execute("sleep 0.1; echo next", timeout=20).output == "next\n"
    assert _bytes(sandbox, "cat /tmp/status") == b"0\n"


def test_what_a_background_job_prints_at_once_is_kept(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("(sleep 0.3; echo late) & echo started", timeout=20)
    assert result.output == "started\nlate\n"


def test_more_background_jobs_than_descriptors(client: DockerClient, base_image: str) -> None:
    """The oldest one's output is given up; the shell goes on."""
    with DockerSandbox.start(client, base_image, Limits(open_files=16)) as sandbox:
        for number in range(12):
            assert sandbox.execute(f"sleep 600 & echo {number}", timeout=20).output == f"{number}\n"
        assert _processes(sandbox).count("sleep 600") == 12


# Directories


@BOTH
def test_a_deleted_working_directory(sandbox: DockerSandbox, session: bool) -> None:
    sandbox.execute("mkdir /tmp/gone; cd /tmp/gone; rm -r /tmp/gone; pwd", timeout=20, session=True)
    if session:
        result = sandbox.execute("pwd; cd /tmp; pwd", timeout=20, session=True)
        assert result.output == "/var/lib/swe-srl/session: line 7: cd: /tmp/gone: No such file or directory\n/\n/tmp\n"
    assert sandbox.execute("pwd", timeout=20, session=session).output == ("/tmp\n" if session else "/\n")


def test_a_deleted_directory_of_the_task(sandbox: DockerSandbox) -> None:
    sandbox.workdir = "/testbed"
    sandbox.execute("mkdir /testbed", timeout=20)
    assert sandbox.execute("pwd", timeout=20).output == "/testbed\n"
    sandbox.execute("rm -r /testbed", timeout=20)
    result = sandbox.execute("pwd; mkdir /testbed", timeout=20)
    assert (result.output, result.returncode) == ("bash: cd: /testbed: No such file or directory\n/\n", 0)
    assert sandbox.execute("pwd", timeout=20).output == "/testbed\n"


# Images and interpreters


def test_the_oldest_python_here(client: DockerClient) -> None:
    ensure_base_image(client, BASE_IMAGES["py39"].tag, print)
    with DockerSandbox.start(client, BASE_IMAGES["py39"].tag) as sandbox:
        assert _run(sandbox, "bash", "-c", "cat; exit 3", stdin=b"\xff\0") == ShellResult(b"\xff\0", 3, 0)
        assert sandbox.execute("sleep 60", timeout=0.2).timed_out


def test_a_python_that_must_fork(client: DockerClient, base_image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 3.8 there is no posix_spawn."""
    monkeypatch.setattr(shell_module, "_LOAD", shell_module._LOAD.replace("import os\n", "import os; del os.posix_spawnp\n"))
    with DockerSandbox.start(client, base_image) as sandbox:
        assert _run(sandbox, "bash", "-c", "cat; exit 3", stdin=b"\xff\0") == ShellResult(b"\xff\0", 3, 0)
        assert _run(sandbox, "nonesuch") == ShellResult(b"nonesuch: No such file or directory\n", 127, 0)
        assert _bytes(sandbox, "yes | head -n 1; echo ${PIPESTATUS[0]}; ls /proc/$$/fd; true") == b"y\n141\n0\n1\n2\n"
        assert sandbox.execute("sleep 987", timeout=0.2).timed_out
        assert "sleep 987" not in _processes(sandbox)


def test_a_program_that_is_not_there(shared: DockerSandbox) -> None:
    assert _run(shared, "nonesuch") == ShellResult(b"nonesuch: No such file or directory\n", 127, 0)
    assert _run(shared, "/etc/hostname").exit_code == 126
    assert _run(shared, "bash", "-c", "a\0b").exit_code == 126
    assert _bytes(shared, "echo next") == b"next\n"


def test_an_image_without_python_is_refused(client: DockerClient, base_image: str) -> None:
    container = client.containers.create(base_image, ["rm", "-rf", "/usr/bin/python3", "/usr/bin/python3.11"], network_mode="none")
    try:
        container.start()
        container.wait()
        image = container.commit("swe-srl/test", "no-python")
    finally:
        container.remove(force=True)
    try:
        with pytest.raises(UserError, match=r"image swe-srl/test:no-python: no shell .* it needs bash and python3 \(.*python3"):
            DockerSandbox.start(client, "swe-srl/test:no-python")
        assert client.containers.list(all=True, filters={"ancestor": image.id}) == []
    finally:
        client.images.remove("swe-srl/test:no-python")


# The host's end


def test_a_host_that_goes_away_takes_the_container_with_it(client: DockerClient, base_image: str) -> None:
    for command in ("true", "setsid sleep 60 & true"):
        sandbox = DockerSandbox.start(client, base_image)
        sandbox.execute(command, timeout=20)
        sandbox._shell.close()
        _wait_until_gone(client, sandbox)


def test_one_command_at_a_time(sandbox: DockerSandbox) -> None:
    """Threads that share a shell wait for each other."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: sandbox.execute(f"echo {number}; exit {number}", timeout=60), range(40)))
    assert [(result.output, result.returncode) for result in results] == [(f"{number}\n", number) for number in range(40)]


def test_a_shell_needs_its_container(client: DockerClient, sandbox: DockerSandbox) -> None:
    client.api.kill(sandbox.container.id)
    with pytest.raises(SandboxLost, match="the container no longer answers"):
        Shell(sandbox.container).connect()
