"""Docker: one client, command execution over the API, and the sandbox that denies by default.

Invariant: no host shell is ever involved and no name from inside a container is interpreted on the host. Commands travel as
argument vectors through the daemon's API; files travel over a command's stdin and stdout.
"""

from __future__ import annotations

import contextlib
import os
import select
import struct
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Ulimit
from requests.exceptions import RequestException

from swe_srl.environments.sandbox import Limits, SandboxLost
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import CommandResult

RUN_LABEL = "swe-srl.run"
"""Every container carries it: the id of the run that made it."""
RUN_ID = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

_SESSION_FOLDER = "/var/lib/swe-srl/session"
# The state of the long-lived shell is kept in files: whatever copies the container's files copies the shell's state too.
# One line, so that bash counts the lines of the command itself from 1.
_SESSION_SCRIPT = (
    f"if [ -f {_SESSION_FOLDER}/variables ]; then unset -v $(compgen -e) 2> /dev/null; . {_SESSION_FOLDER}/variables; "
    f'cd -- "$(cat {_SESSION_FOLDER}/cwd)"; fi; '
    f"trap 'mkdir -p {_SESSION_FOLDER}; pwd > {_SESSION_FOLDER}/cwd; export -p > {_SESSION_FOLDER}/variables' EXIT; "
    'eval "$1"'
)
_LONG_COMMAND = "/var/lib/swe-srl/command"
_MAX_ARGUMENT_BYTES = 120_000
"""A longer command travels as a file: the kernel takes 128 KiB in one argument."""
_LOOK_SECONDS = 0.25
"""How often the daemon is asked whether a command still runs."""
_QUIET_SECONDS = 1.0
"""How long the output of a command that has ended must be quiet to be taken for complete, where it does not end by itself."""
_GRACE_SECONDS = 10.0
"""How long a command may outlive its time-out before the host ends it from outside."""


def connect() -> docker.DockerClient:
    """A client of the daemon that answers (DOCKER_HOST is honoured). Raises UserError where none does."""
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException as error:
        raise UserError(
            f"no Docker daemon answers ({_first_line(error)}); start one with `swe-srl env docker` or set DOCKER_HOST"
        ) from error
    return client


@contextlib.contextmanager
def docker_errors(what: str) -> Iterator[None]:
    """Turn the daemon's errors into errors a user can act on; `what` names the task or image concerned."""
    try:
        yield
    except ImageNotFound as error:
        raise UserError(f"{what}: image not found ({_first_line(error)})") from error
    except (APIError, DockerException, OSError) as error:
        message = _first_line(error)
        if "no space left on device" in str(error).lower():
            raise UserError(
                f"{what}: the disk is full ({message}); free space, for example with `docker image prune`"
            ) from error
        if isinstance(error, OSError) and not isinstance(error, DockerException | ConnectionError | RequestException):
            raise
        raise UserError(f"{what}: the Docker daemon failed ({message}); is it still running? See `swe-srl doctor`") from error


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What one command left behind."""

    output: bytes
    exit_code: int | None
    """None when the host gave up waiting for it."""
    dropped_bytes: int


def run_in(
    container: Container,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    workdir: str | None = None,
    stdin: bytes | None = None,
    deadline: float | None = None,
    output_bytes: int = 10 * 1024**2,
) -> ExecResult:
    """Run an argument vector in a container; stdout and stderr come back together.

    deadline: time.monotonic() value at which to stop waiting (the process itself is not killed here).
    """
    api: Any = container.client.api  # type: ignore[union-attr]  # a container that came from a client has one
    created = api.exec_create(
        container.id,
        list(argv),
        stdin=stdin is not None,
        environment=dict(env or {}),
        workdir=workdir,
        stdout=True,
        stderr=True,
    )
    stream = api.exec_start(created["Id"], socket=True)
    sock = getattr(stream, "_sock", stream)
    chunk = _read_ahead(stream, sock)
    kept, size, dropped = [], 0, 0
    frames = _Frames()
    finished = False
    look = time.monotonic() + _LOOK_SECONDS
    ended = heard = float("inf")
    try:
        if stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read to the end
                sock.sendall(stdin)
                sock.shutdown(1)
        while (now := time.monotonic()) < (deadline or now + 1):
            # A background job may hold the output open after the command itself has ended; and on a busy machine that end is
            # known before the last output has come.
            if now >= look:
                look = now + _LOOK_SECONDS
                if ended > now and not api.exec_inspect(created["Id"])["Running"]:
                    ended = heard = now
            if now - heard >= _QUIET_SECONDS or now - ended >= 5 * _QUIET_SECONDS:
                finished = True
                break
            if not chunk:
                if not select.select([sock], [], [], min(_LOOK_SECONDS, (deadline or now + 1) - now))[0]:
                    continue
                chunk = sock.recv(1 << 16)
            if not chunk:
                finished = True
                break
            if ended <= now:
                heard = now
            for payload in frames.feed(chunk):
                room = max(0, output_bytes - size)
                kept.append(payload[:room])
                size += len(payload[:room])
                dropped += len(payload) - len(payload[:room])
            chunk = b""
    finally:
        stream.close()
    code = _exit_code(api, created["Id"]) if finished else None
    return ExecResult(b"".join(kept), code, dropped)


def _read_ahead(stream: Any, sock: Any) -> bytes:
    """What the HTTP client read beyond the head of the response: the first output of a quick command is among it."""
    response = getattr(stream, "_response", None)
    if response is None:
        return b""
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bytes(response.raw._fp.fp.peek())
    except OSError:  # nothing there yet
        return b""
    finally:
        sock.settimeout(timeout)


def _exit_code(api: Any, exec_id: str) -> int | None:
    # The stream can end a moment before the daemon has noted the exit status.
    for _ in range(200):
        state = api.exec_inspect(exec_id)
        if not state["Running"]:
            return int(state["ExitCode"])
        time.sleep(0.01)
    return None


@contextlib.contextmanager
def pool_of_containers(client: docker.DockerClient, workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each drive a container. Left by an error or Ctrl-C, it removes every container of this process."""
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        ending = threading.Thread(target=pool.shutdown, daemon=True)
        ending.start()
        # Until every thread has ended: one that was starting a container would otherwise run its work to the end.
        while ending.is_alive():
            _remove_containers_of_this_run(client)
            ending.join(0.2)
        _remove_containers_of_this_run(client)
        raise
    pool.shutdown(wait=True)


def _remove_containers_of_this_run(client: docker.DockerClient) -> None:
    with contextlib.suppress(APIError, DockerException, OSError):
        for container in client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={RUN_ID}"}, ignore_removed=True):
            with contextlib.suppress(APIError):
                remove_container(container)


class _Frames:
    """Docker's multiplexed stream: 8 header bytes (stream, 3 × 0, big-endian length), then the payload."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= 8:
            (length,) = struct.unpack_from(">I", self._buffer, 4)
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            yield payload


class DockerSandbox:
    """A container without network, capabilities, privileges or anything of the host; see `Sandbox`."""

    def __init__(self, container: Container, limits: Limits) -> None:
        self._container = container
        self._limits = limits
        self._closed = False

    @classmethod
    def start(cls, client: docker.DockerClient, image: str, limits: Limits | None = None) -> DockerSandbox:
        """Create and start a container of `image`. Raises UserError where the image is missing or the daemon fails."""
        limits = limits or Limits()
        with docker_errors(f"image {image}"):
            container = client.containers.create(
                image,
                entrypoint=["sleep"],
                command=["infinity"],
                init=True,
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=limits.pids,
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,
                nano_cpus=int(min(limits.cpus, os.cpu_count() or 1) * 1e9),
                ulimits=[
                    Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
                    Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
                    Ulimit(name="core", soft=0, hard=0),
                ],
                ipc_mode="private",
                hostname="testbed",
                labels={RUN_LABEL: RUN_ID},
            )
            try:
                container.start()
            except BaseException:
                container.remove(force=True)
                raise
        return cls(container, limits)

    def execute(
        self, command: str, *, timeout: float, env: Mapping[str, str] | None = None, session: bool = False
    ) -> CommandResult:
        """See `Sandbox.execute`."""
        command = command.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair
        if len(command.encode()) > _MAX_ARGUMENT_BYTES:
            self.write_file(_LONG_COMMAND, command.encode())
            command = f". {_LONG_COMMAND}"
        # The outer bash joins stdout and stderr so that their order is kept; the inner one is exactly `bash -c COMMAND`.
        script = ["bash", "-c", _SESSION_SCRIPT, "bash", command] if session else ["bash", "-c", command]
        argv = ["timeout", "--signal=KILL", f"{timeout:g}", "bash", "-c", 'exec "$@" 2>&1', "bash", *script]
        started = time.monotonic()
        result = self._run(argv, env=env, deadline=started + timeout + _GRACE_SECONDS)
        seconds = time.monotonic() - started
        if result.exit_code is None:
            self._kill_everything()
        if result.exit_code == 137:  # this command alone, or everything?
            self._check_alive()
        over = result.exit_code is None or (result.exit_code in (124, 137) and seconds >= timeout)
        return CommandResult(
            output=result.output.decode("utf-8", errors="replace"),
            returncode=None if over else result.exit_code,
            seconds=seconds,
            dropped_bytes=result.dropped_bytes,
        )

    def read_file(self, path: str) -> bytes:
        """See `Sandbox.read_file`."""
        result = self._run(["cat", "--", path], deadline=time.monotonic() + 60)
        if result.exit_code != 0:
            raise FileNotFoundError(f"{path} in the sandbox: {result.output.decode(errors='replace').strip()}")
        if result.dropped_bytes:
            raise ValueError(f"{path} in the sandbox: larger than {self._limits.output_bytes} bytes")
        return result.output

    def write_file(self, path: str, content: bytes) -> None:
        """See `Sandbox.write_file`."""
        # What cannot be written is read all the same: else the connection breaks and takes the reason with it.
        script = 'mkdir -p -- "$(dirname -- "$1")" && cat > "$1" || { status=$?; cat > /dev/null; exit $status; }'
        argv = ["bash", "-c", script, "bash", path]
        result = self._run(argv, stdin=content, deadline=time.monotonic() + 60)
        if result.exit_code != 0:
            raise OSError(f"{path} in the sandbox: {result.output.decode(errors='replace').strip()}")

    def close(self) -> None:
        """See `Sandbox.close`."""
        if not self._closed:
            self._closed = True
            with docker_errors("removing a sandbox"):
                remove_container(self._container)

    def __enter__(self) -> DockerSandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, argv: Sequence[str], **options: Any) -> ExecResult:
        try:
            return run_in(self._container, argv, output_bytes=self._limits.output_bytes, **options)
        except (APIError, DockerException, OSError) as error:
            raise SandboxLost(f"the container no longer answers: {_first_line(error)}") from error

    def _check_alive(self) -> None:
        """Raise SandboxLost where the container was killed and not only a process in it."""
        time.sleep(0.1)  # its processes end a moment before the daemon notes its end
        self._run(["true"], deadline=time.monotonic() + _GRACE_SECONDS)
        try:
            self._container.reload()
        except (APIError, DockerException, OSError) as error:
            raise SandboxLost(f"the container no longer answers: {_first_line(error)}") from error
        if self._container.status != "running":
            raise SandboxLost("the container no longer answers: it was killed")

    def _kill_everything(self) -> None:
        """The command escaped its own time-out: end every process by starting the container again, or give it up."""
        try:
            self._container.restart(timeout=0)  # its files stay, and with them the state of the long-lived shell
        except (APIError, DockerException, OSError) as error:
            self.close()
            raise SandboxLost("a command could not be killed at its time-out; the container was removed") from error


def remove_container(container: Container) -> None:
    """Remove a container whatever it is doing; one that is gone, or that someone else is removing, is no error."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
