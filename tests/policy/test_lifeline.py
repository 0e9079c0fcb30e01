"""A command under a lifeline ends with whoever started it, however that ends, and so does everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from swe_srl.policy.samplers.lifeline import Lifeline


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "engine"
    folder.mkdir()
    return folder


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def family(folder: Path) -> list[int]:
    """The processes of a command that wrote `PID PID` to folder/pids."""
    until(lambda: (folder / "pids").exists() and len((folder / "pids").read_text().split()) == 2)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def command(folder: Path) -> list[str]:
    return ["sh", "-c", f"sleep 600 & echo $$ $! > {folder}/pids; wait"]


def dead(pids: list[int]) -> bool:
    def lives(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return not any(map(lives, pids))


def test_closing_kills_the_command_and_what_it_started_and_removes_the_folder(folder: Path) -> None:
    lifeline = Lifeline(command(folder), folder)
    pids = family(folder)
    assert not dead(pids)
    assert lifeline.status is None
    lifeline.close()
    assert not folder.exists()
    until(lambda: dead(pids))
    lifeline.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_all_ends_with_the_process_that_started_it(folder: Path, number: signal.Signals) -> None:
    code = (
        "import sys, time; from pathlib import Path; from swe_srl.policy.samplers.lifeline import Lifeline\n"
        f"lifeline = Lifeline({command(folder)!r}, Path({str(folder)!r})); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as starter:
        pids = family(folder)
        assert not dead(pids)
        starter.send_signal(number)
    until(lambda: dead(pids) and not folder.exists())


def test_ctrl_c_in_the_terminal_does_not_reach_the_command(folder: Path) -> None:
    lifeline = Lifeline(command(folder), folder)
    try:
        [shell, _] = family(folder)
        assert os.getpgid(shell) != os.getpgid(0)
        assert os.getsid(shell) != os.getsid(0)
    finally:
        lifeline.close()


def test_a_command_that_ends_by_itself_leaves_its_status_and_last_words(folder: Path) -> None:
    lifeline = Lifeline(["sh", "-c", "echo $COLOUR; echo two; echo three >&2; exit 3"], folder, environment={"COLOUR": "blue"})
    until(lambda: lifeline.status is not None)
    assert lifeline.status == 3
    assert lifeline.last_words() == "blue\ntwo\nthree"
    assert lifeline.last_words(lines=1) == "three"
    lifeline.close()
    assert not folder.exists()
    assert lifeline.last_words() == ""


def test_the_other_end_of_a_pipe_notices_when_the_command_dies(folder: Path) -> None:
    ours, theirs = os.pipe()
    lifeline = Lifeline([sys.executable, "-c", f"import os; os.write({theirs}, b'hello')"], folder, pass_fds=[theirs])
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        # Reads to the end: it would wait for ever if anything but the command held the other end.
        assert pipe.read() == "hello"
    lifeline.close()
