"""A person's terminal in a sandbox: an interactive bash at its session's directory and variables.

Invariant: the person's terminal is as it was before, however this ends. Only bytes travel between the two terminals.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from typing import Any

from swe_srl.environments.docker import DockerSandbox, docker_errors
from swe_srl.environments.exec import read_ahead
from swe_srl.environments.session import SESSION_FILE
from swe_srl.errors import UserError

_SCRIPT = f"""\
if [ -f {SESSION_FILE} ]; then exec env -i TERM="$TERM" bash -c '. {SESSION_FILE}; export TERM="$1"; exec bash' bash "$TERM"; fi
cd -- "$1" || cd /
exec bash
"""


def open_terminal(sandbox: DockerSandbox) -> int:
    """Connect standard input and output with a bash in the sandbox until it ends; returns its exit status.

    Raises UserError where standard input or output is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("standard input and output must be a terminal; `swe-srl env shell` is for a person")
    api: Any = sandbox.container.client.api  # type: ignore[union-attr]  # a container that came from a client has one
    argv = ["bash", "-c", _SCRIPT, "bash", sandbox.workdir]
    with docker_errors("opening a terminal in the sandbox"):
        created = api.exec_create(
            sandbox.container.id, argv, stdin=True, tty=True, workdir="/", environment={"TERM": os.environ.get("TERM", "dumb")}
        )
        stream = api.exec_start(created["Id"], tty=True, socket=True)

        def resize(*_: object) -> None:
            columns, rows = os.get_terminal_size(sys.stdin.fileno())
            api.exec_resize(created["Id"], height=rows, width=columns)

        before = signal.signal(signal.SIGWINCH, resize)
        try:
            resize()
            with _raw_terminal(sys.stdin.fileno()):
                _connect(stream, sys.stdin.fileno(), sys.stdout.fileno())
        finally:
            signal.signal(signal.SIGWINCH, before)
            stream.close()
        return int(api.exec_inspect(created["Id"])["ExitCode"] or 0)


@contextlib.contextmanager
def _raw_terminal(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _connect(stream: Any, stdin: int, stdout: int) -> None:
    socket = getattr(stream, "_sock", stream)
    data = read_ahead(stream, socket)
    socket.settimeout(None)
    pending = getattr(socket, "pending", lambda: 0)  # of a TLS connection: bytes that select does not see
    while True:
        _write(stdout, data)
        ready = [socket] if pending() else select.select([socket, stdin], [], [])[0]
        data = b""
        if stdin in ready:
            typed = os.read(stdin, 1 << 12)
            if not typed:
                return
            socket.sendall(typed)
        if socket in ready:
            data = socket.recv(1 << 16)
            if not data:
                return


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
