"""What a session keeps, whatever a command does to the shell that notes it down; and that nobody sees it being noted."""

from __future__ import annotations

import pytest

from swe_srl.environments.docker import DockerSandbox


def _session(sandbox: DockerSandbox, command: str) -> tuple[str, int | None]:
    result = sandbox.execute(command, timeout=20, session=True)
    return result.output, result.returncode


@pytest.mark.parametrize(
    ("command", "output", "returncode"),
    [
        ("set -x; echo hi", "++ echo hi\nhi\n", 0),
        ("set -v; echo hi", "hi\n", 0),
        ("set -e; false; echo no", "", 1),
        ("trap 'echo bye' EXIT; echo hi", "hi\nbye\n", 0),
        ("trap 'echo failed' ERR; false", "failed\n", 1),
        ("echo() { builtin echo other; }; printf() { :; }; read() { :; }; export() { :; }; cd() { :; }; echo", "other\n", 0),
        ("exec > /tmp/file; echo hi", "", 0),
    ],
)
def test_nothing_of_it_is_seen_and_the_state_is_kept(sandbox: DockerSandbox, command: str, output: str, returncode: int) -> None:
    assert _session(sandbox, f"builtin cd /usr; declare -x KEPT=1\n{command}") == (output, returncode)
    assert _session(sandbox, "echo $PWD $KEPT") == ("/usr 1\n", 0)


@pytest.mark.parametrize(
    "hindrance",
    ["rm -f /dev/shm/*; head -c 70M /dev/zero > /dev/shm/full 2> /dev/null", "rm -f /dev/shm/*; mkdir /dev/shm/swe-srl-session"],
)
def test_the_state_is_kept_where_its_first_place_cannot_be_written(sandbox: DockerSandbox, hindrance: str) -> None:
    assert _session(sandbox, f"{hindrance}\ncd /opt; export TWO=$'a\\n\\n'") == ("", 0)
    assert _session(sandbox, 'echo "$PWD $TWO|"') == ("/opt a\n\n|\n", 0)


def test_the_former_state_stays_where_the_new_one_cannot_be_written(sandbox: DockerSandbox) -> None:
    """As on a full disk: half a state would be none."""
    _session(sandbox, "cd /usr; export ONE=1")
    assert _session(sandbox, "cd /opt; export TWO=$(head -c 100000 /dev/zero | tr '\\0' x); trap '' XFSZ; ulimit -f 1") == ("", 0)
    assert _session(sandbox, "echo $PWD $ONE ${#TWO}") == ("/usr 1 0\n", 0)


def test_a_variable_longer_than_an_argument_may_be(sandbox: DockerSandbox) -> None:
    _session(sandbox, "cd /usr")
    assert _session(sandbox, "export LONG=$(head -c 200000 /dev/zero | tr '\\0' x)") == ("", 0)
    assert _session(sandbox, "echo ${#LONG}; unset LONG; cd /opt") == ("200000\n", 0)
    assert _session(sandbox, "ls -d $PWD") == ("/opt\n", 0)
