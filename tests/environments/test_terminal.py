"""A person's terminal at a snapshot: a real pseudo-terminal on this side, a real sandbox on the other."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.runs import RUN_LABEL
from swe_srl.environments.snapshots import FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_folder(client: DockerClient, sandbox: DockerSandbox, tmp_path: Path) -> Iterator[Path]:
    """A run folder with one snapshot, mine@4, of a session in /tmp/work with an exported variable."""
    sandbox.execute("mkdir /tmp/work; cd /tmp/work; export GREETING='hello there'; touch here", timeout=20, session=True)
    image = sandbox.snapshot("mine@4").image
    (tmp_path / FILE).write_text(json.dumps({"trajectory": "mine", "k": 4, "image": image}) + "\n")
    yield tmp_path
    client.images.remove(image, force=True)


class _Terminal:
    """`swe-srl env shell mine@4` in a terminal of 30 rows and 100 columns."""

    def __init__(self, folder: Path) -> None:
        self.master, self.slave = pty.openpty()
        self.size(30, 100)
        self.settings = termios.tcgetattr(self.slave)
        command = [sys.executable, "-m", "swe_srl.cli", "env", "shell", "mine@4", "--run", str(folder)]
        ends = {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}
        self.process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TERM": "xterm"}, **ends)  # type: ignore[call-overload]

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read_until(self, text: str) -> str:
        seen, end = b"", time.monotonic() + 60
        while text.encode() not in seen:
            assert time.monotonic() < end, f"no {text!r} in {seen!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                seen += os.read(self.master, 4096)
        return seen.decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(run_folder: Path) -> Iterator[_Terminal]:
    started = _Terminal(run_folder)
    yield started
    started.close()


def test_a_terminal_at_the_state_of_a_step(client: DockerClient, terminal: _Terminal) -> None:
    terminal.read_until("# ")
    terminal.type("echo $PWD; echo \"<$GREETING>\" *; tty; stty size; echo $TERM\r")
    seen = terminal.read_until("xterm\r\n")
    assert "/tmp/work\r\n<hello there> here\r\n/dev/pts/0\r\n30 100\r\nxterm\r\n" in seen
    terminal.size(40, 120)
    terminal.process.send_signal(signal.SIGWINCH)
    time.sleep(0.5)
    terminal.type("stty size\r")
    terminal.read_until("40 120\r\n")
    terminal.type("sleep 600\r")
    time.sleep(0.5)
    terminal.type("\x03echo inter''rupted\r")  # Ctrl-C is for the sandbox
    terminal.read_until("interrupted\r\n")
    terminal.type("ls /sys/class/net\r")
    terminal.read_until("lo\r\n")
    running = client.containers.list(filters={"label": RUN_LABEL}, ignore_removed=True)
    [container] = [found for found in running if found.labels[RUN_LABEL].split(".")[0] == str(terminal.process.pid)]
    terminal.type("exit 3\r")
    assert terminal.process.wait(30) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.settings
    assert container.id not in [found.id for found in client.containers.list(all=True, ignore_removed=True)]


def test_a_terminal_that_is_ended_from_outside_is_as_before(terminal: _Terminal) -> None:
    terminal.read_until("# ")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.process.wait(30) == 130
    assert termios.tcgetattr(terminal.slave) == terminal.settings


def test_no_terminal(run_folder: Path) -> None:
    command = [sys.executable, "-m", "swe_srl.cli", "env", "shell", "mine@4", "--run", str(run_folder)]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: standard input and output must be a terminal; `swe-srl env shell` is for a person\n"
