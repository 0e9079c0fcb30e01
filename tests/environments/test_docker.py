"""Real sandboxes: what a command leaves behind, what a session keeps, and files."""

from __future__ import annotations

import time

import pytest
from containers import SMALL, said

from swe_srl.environments.docker import DockerSandbox

# Commands


@pytest.mark.parametrize(
    ("command", "output", "returncode"),
    [
        ("echo one; echo two >&2; echo three; echo four >&2", "one\ntwo\nthree\nfour\n", 0),
        ("printf 'no newline'", "no newline", 0),
        ("true", "", 0),
        ("false", "", 1),
        ("exit 3", "", 3),
        ("kill -9 $$", "", 137),
        (r"printf 'a\xffb\xe2\x82'", "a�b�", 0),
        (r"printf 'a\r\nb\0c'", "a\r\nb\0c", 0),
        ("echo é; echo '$HOME' \"a  b\"", "é\n$HOME a  b\n", 0),
        ("nosuchcommand", "bash: line 1: nosuchcommand: command not found\n", 127),
        ("cat", "", 0),
        ("echo half: \ud800", "half: ?\n", 0),
    ],
)
@pytest.mark.parametrize("session", [False, True])
def test_output_and_exit_status(shared: DockerSandbox, command: str, output: str, returncode: int, session: bool) -> None:
    result = shared.execute(command, timeout=20, session=session)
    assert (result.output, result.returncode, result.dropped_bytes) == (output, returncode, 0)


def test_variables_of_one_command(shared: DockerSandbox) -> None:
    result = shared.execute('echo "$ONE $PAGER"', timeout=20, env={"ONE": "1 2", "PAGER": "cat"})
    assert result.output == "1 2 cat\n"
    assert said(shared, 'echo "[$ONE]"') == "[]"


def test_a_time_out_kills_the_process_group(sandbox: DockerSandbox) -> None:
    started = time.monotonic()
    result = sandbox.execute("echo before; sleep 987 & sleep 986; echo after", timeout=1)
    assert (result.output, result.returncode, result.timed_out) == ("before\n", None, True)
    assert time.monotonic() - started < 8
    assert "98" not in said(sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sleep 98[67]' || true")
    assert said(sandbox, "echo usable") == "usable"


def test_a_command_in_time_that_ends_like_a_killed_one(shared: DockerSandbox) -> None:
    assert shared.execute("exit 124", timeout=20).returncode == 124
    assert shared.execute("exit 137", timeout=20).returncode == 137


def test_a_background_job_does_not_hold_the_command_up(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("sleep 60 & echo started", timeout=30)
    assert (result.output, result.returncode) == ("started\n", 0)
    assert result.seconds < 10


def test_a_background_job_that_never_stops_talking_does_not_either(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("while :; do echo x; sleep 0.05; done & echo $! > /tmp/job; echo started", timeout=60)
    assert result.returncode == 0
    assert set(result.output.split()) == {"started", "x"}
    assert result.seconds < 15
    assert said(sandbox, "kill -0 $(cat /tmp/job) && echo it still runs") == "it still runs"


def test_what_leaves_its_group_and_ignores_signals_does_not_hold_the_sandbox_up(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("setsid bash -c 'trap \"\" TERM INT HUP; echo away; sleep 60' & wait; sleep 60", timeout=1)
    assert (result.output, result.returncode) == ("away\n", None)
    assert result.seconds < 8
    assert said(sandbox, "echo usable") == "usable"


def test_a_command_that_stops_its_own_time_out_is_ended_from_outside(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swe_srl.environments.docker._GRACE_SECONDS", 1.0)
    sandbox.execute("cd /tmp; export KEPT=yes", timeout=20, session=True)
    result = sandbox.execute("echo mine > /tmp/file; setsid sleep 60 & kill -STOP $PPID; sleep 60", timeout=1)
    assert (result.returncode, result.output) == (None, "")
    assert result.seconds < 8
    assert said(sandbox, "cat /tmp/file; ls /proc | grep -c '^[0-9]*$'").split()[0] == "mine"
    assert sandbox.execute('echo "$PWD $KEPT"', timeout=20, session=True).output == "/tmp yes\n"
    assert "sleep 60" not in said(sandbox, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_output_beyond_the_cap_is_drained_and_counted(small: DockerSandbox) -> None:
    result = small.execute("head -c 2500000 /dev/zero | tr '\\0' x; exit 4", timeout=20)
    assert (result.output, result.returncode, result.dropped_bytes) == ("x" * 1000, 4, 2_499_000)
    exactly = small.execute("head -c 1000 /dev/zero | tr '\\0' x", timeout=20)
    assert (len(exactly.output), exactly.dropped_bytes) == (1000, 0)


@pytest.mark.parametrize("session", [False, True])
def test_a_command_longer_than_an_argument_may_be(shared: DockerSandbox, session: bool) -> None:
    text = "x" * 200_000
    result = shared.execute(f"text='{text}'\necho ${{#text}}\nexit 5", timeout=20, session=session)
    assert (result.output, result.returncode) == ("200000\n", 5)


# Sessions


def test_a_session_keeps_its_directory_and_exported_variables(sandbox: DockerSandbox) -> None:
    def run(command: str, session: bool = True) -> str:
        return sandbox.execute(command, timeout=20, session=session, env={"GIVEN": "by the scaffold"}).output

    assert (
        run("mkdir -p '/tmp/a b'; cd '/tmp/a b'; export ONE='1  \"2\"'; export TWO=$'line\\nline'; THREE=3; GIVEN=changed")
        == ""
    )
    assert run('echo "$PWD|$ONE|$TWO|$THREE|$GIVEN"') == '/tmp/a b|1  "2"|line\nline||changed\n'
    assert run('echo "$PWD|$ONE|$GIVEN"', session=False) == "/||by the scaffold\n"
    assert run('cd ..; echo "$PWD"') == "/tmp\n"
    assert run('echo "$PWD"') == "/tmp\n"


def test_a_session_outlives_exit(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("cd /tmp; export ONE=1; exit 3", timeout=20, session=True)
    assert result.returncode == 3
    assert sandbox.execute("echo $PWD $ONE", timeout=20, session=True).output == "/tmp 1\n"


def test_a_session_remembers_what_was_unset(sandbox: DockerSandbox) -> None:
    assert sandbox.execute("unset HOME", timeout=20, session=True).output == ""
    assert sandbox.execute("echo [$HOME]", timeout=20, session=True).output == "[]\n"
    assert sandbox.execute("echo [$HOME]", timeout=20).output == "[/root]\n"


def test_a_session_command_that_times_out_leaves_the_last_state(sandbox: DockerSandbox) -> None:
    sandbox.execute("cd /tmp; export ONE=1", timeout=20, session=True)
    assert sandbox.execute("cd /; export ONE=2; sleep 60", timeout=0.5, session=True).timed_out
    assert sandbox.execute("echo $PWD $ONE", timeout=20, session=True).output == "/tmp 1\n"


def test_a_session_numbers_lines_and_sees_syntax_errors_as_bash_does(sandbox: DockerSandbox) -> None:
    result = sandbox.execute("true\nnosuchcommand", timeout=20, session=True)
    assert (result.output, result.returncode) == ("bash: line 2: nosuchcommand: command not found\n", 127)
    broken = sandbox.execute("if", timeout=20, session=True)
    assert broken.returncode != 0
    assert "syntax error" in broken.output


# Files


@pytest.mark.parametrize("content", [b"", b"text\n", bytes(range(256)) * 4, b"\r\n\0" * 100_000], ids=len)
@pytest.mark.parametrize("path", ["/tmp/new/folder/a b'\"$x.bin", "/tmp/-n"])
def test_files_come_back_byte_for_byte(shared: DockerSandbox, path: str, content: bytes) -> None:
    shared.write_file(path, content)
    assert shared.read_file(path) == content


def test_files_that_cannot_be_read(shared: DockerSandbox, small: DockerSandbox) -> None:
    with pytest.raises(FileNotFoundError, match=r"/tmp/none in the sandbox: .*No such file"):
        shared.read_file("/tmp/none")
    with pytest.raises(FileNotFoundError, match="Is a directory"):
        shared.read_file("/tmp")
    small.write_file("/tmp/exact", b"x" * 1000)
    assert len(small.read_file("/tmp/exact")) == 1000
    small.write_file("/tmp/large", b"x" * 1001)
    with pytest.raises(ValueError, match="/tmp/large in the sandbox: larger than 1000 bytes"):
        small.read_file("/tmp/large")


def test_files_that_cannot_be_written(shared: DockerSandbox, small: DockerSandbox) -> None:
    with pytest.raises(OSError, match="/proc/none/file in the sandbox"):
        shared.write_file("/proc/none/file", b"x" * 5_000_000)
    with pytest.raises(OSError, match="/tmp/huge in the sandbox"):
        small.write_file("/tmp/huge", b"x" * (SMALL.file_bytes + 1))
