"""A shell held open in a container: one long-lived process of ours in it (`supervisor.py`) runs command after command.

Invariant: the process lives among hostile ones of the same user and may be killed, stopped or made to lie. It is no security
boundary: whatever bytes come back, the host keeps at most what it asked for and waits no longer than its deadline. Where the
process was killed it is started again; where it breaks the protocol the connection is closed, which ends the container.
A command is run once: it is sent again only where it cannot have started.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from docker.errors import APIError, DockerException
from docker.models.containers import Container

from swe_srl.environments.exec import Frames, read_ahead
from swe_srl.environments.sandbox import SandboxLost

_HEADER = struct.Struct(">cII")
_MAX_FRAME = 1 << 20
_CONNECT_SECONDS = 30.0
# Under its own name: an agent that kills all Python programs means its own.
_LAUNCH = (
    'for python in /usr/bin/python3 /usr/local/bin/python3; do [ -x "$python" ] && exec -a swe-srl-shell "$python" -I -S -c "$1"; '
    'done; exec python3 -I -S -c "$1"'
)
_LOAD = """\
import os
text = b''
while len(text) < {size}:
    part = os.read(0, {size} - len(text))
    if not part: os._exit(1)
    text += part
exec(compile(text, 'swe-srl-shell', 'exec'))
"""


@dataclass(frozen=True, slots=True)
class ShellResult:
    """What one command left behind."""

    output: bytes
    """stdout and stderr in the order written, at most what was asked for."""
    exit_code: int | None
    """128 + n for a process ended by signal n. None where the host's deadline passed: the shell must be closed."""
    dropped_bytes: int
    timed_out: bool = False
    """It was killed at its time-out; the shell is usable."""
    shell_died: bool = False
    """The shell ended in the middle of the command, and the command with it."""


class _Ended(Exception):
    """The process at the other end is gone, or does not keep to the protocol."""


class Shell:
    """Runs commands in a container, one at a time. Started with `connect`, and again by itself where it was killed."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._connection: _Connection | None = None
        self._number = 0
        self._lock = threading.Lock()

    def connect(self) -> None:
        """Start the process in the container. Raises SandboxLost with the reason where that is not possible."""
        try:
            self._connection = _Connection(self._container, time.monotonic() + _CONNECT_SECONDS)
        except (APIError, DockerException, OSError, _Ended) as error:
            raise SandboxLost(f"the container no longer answers: {first_line(error)}") from error

    def run(
        self,
        argv: Sequence[str],
        *,
        workdir: str,
        timeout: float,
        grace: float,
        env: Mapping[str, str] | None = None,
        state: str = "",
        stdin: bytes = b"",
        output_bytes: int,
    ) -> ShellResult:
        """Run an argument vector; its process group is killed after `timeout` seconds.

        state: a file that brings its own environment and directory: where it exists, the command is given none.
        grace: seconds beyond `timeout` after which the host stops waiting for an answer.
        A working directory that is gone is said in the output, and the command starts in `/`.
        Raises SandboxLost where no shell can be had.
        """
        request = {"argv": list(argv), "env": dict(env or {}), "state": state, "workdir": workdir, "timeout": timeout}
        with self._lock:
            for _ in range(2):
                if self._connection is None:
                    self.connect()
                self._number += 1
                request |= {"number": self._number, "output_bytes": output_bytes}
                result = self._run_once(json.dumps(request).encode(), stdin, time.monotonic() + timeout + grace, output_bytes)
                if result is not None:
                    return result
        raise SandboxLost("the container no longer answers: its shell ends whenever it is started")

    def close(self) -> None:
        """End the connection, and with it everything in the container."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _run_once(self, request: bytes, stdin: bytes, deadline: float, output_bytes: int) -> ShellResult | None:
        """The result, or None where the shell was gone before the command began."""
        assert self._connection is not None
        kept: list[bytes] = []
        size = dropped = 0
        begun = False
        try:
            self._connection.send(struct.pack(">II", len(request), len(stdin)) + request + stdin, deadline)
            while True:
                kind, number, payload = self._connection.frame(deadline)
                if number != self._number:
                    raise _Ended("an answer to another request")
                if kind == b"S":
                    begun = True
                elif kind == b"O":
                    kept.append(payload[: max(0, output_bytes - size)])
                    size += len(kept[-1])
                    dropped += len(payload) - len(kept[-1])
                elif kind == b"E":
                    code, more, timed_out = struct.unpack(">iQ?", payload)
                    return ShellResult(b"".join(kept), code & 0xFF, dropped + more, timed_out)
                else:
                    raise _Ended("an answer of an unknown kind")
        except TimeoutError:
            return ShellResult(b"".join(kept), None, dropped)
        except (_Ended, OSError, struct.error):
            self.close()
            if not begun:
                return None
            return ShellResult(b"".join(kept), 137, dropped, shell_died=True)


class _Connection:
    """The process's standard input and output over the daemon's API."""

    def __init__(self, container: Container, deadline: float) -> None:
        api: Any = container.client.api  # type: ignore[union-attr]  # a container that came from a client has one
        source = resources.files("swe_srl.environments").joinpath("supervisor.py").read_bytes()
        argv = ["bash", "-c", _LAUNCH, "bash", _LOAD.format(size=len(source))]
        created = api.exec_create(container.id, argv, stdin=True, stdout=True, stderr=True, workdir="/")
        self._stream = api.exec_start(created["Id"], socket=True)
        self._socket = getattr(self._stream, "_sock", self._stream)
        self._docker = Frames()
        self._buffer = bytearray()
        self._errors = b""
        try:
            self._take(read_ahead(self._stream, self._socket))
            self.send(source, deadline)
            if self.frame(deadline)[0] != b"H":
                raise _Ended("the shell in it does not begin as it should")
        except BaseException:
            self.close()
            raise

    def send(self, data: bytes, deadline: float) -> None:
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        self._socket.sendall(data)

    def frame(self, deadline: float) -> tuple[bytes, int, bytes]:
        """The next (kind, request number, payload). Raises _Ended, TimeoutError or OSError."""
        while True:
            if len(self._buffer) >= _HEADER.size:
                kind, number, size = _HEADER.unpack_from(self._buffer)
                if size > _MAX_FRAME:
                    raise _Ended("an answer of an impossible size")
                if len(self._buffer) >= _HEADER.size + size:
                    payload = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
                    del self._buffer[: _HEADER.size + size]
                    return kind, number, payload
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
            if not data:
                said = self._errors.decode(errors="replace").strip().splitlines()
                raise _Ended(said[-1] if said else "its shell has ended")  # a traceback's reason is its last line
            self._take(data)

    def close(self) -> None:
        self._stream.close()
        if self._socket is not self._stream:
            self._socket.close()

    def _take(self, data: bytes) -> None:
        for stream, payload in self._docker.feed(data):
            if stream == 1:
                self._buffer += payload
            else:
                self._errors = (self._errors + payload)[:2000]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none. What a container says may hold terminal codes."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
