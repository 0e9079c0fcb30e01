"""Docker: one client, and the sandbox that denies by default.

Invariant: no host shell is ever involved and no name from inside a container is interpreted on the host. Commands travel as
argument vectors to the container's shell; files travel over a command's stdin and stdout.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.transport import UnixHTTPAdapter
from docker.types import LogConfig, Ulimit
from requests.exceptions import RequestException

from swe_srl.cluster.meters import SANDBOXES
from swe_srl.cluster.local import threads
from swe_srl.environments.disk import disk_guard
from swe_srl.environments.ending import ended_from_inside
from swe_srl.environments.podman import commit
from swe_srl.environments.runs import RUN_ID, RUN_LABEL
from swe_srl.environments.sandbox import Limits, SandboxLost, SandboxUnavailable, Snapshot
from swe_srl.environments.session import SESSION_FILE, SESSION_SCRIPT
from swe_srl.environments.shell import Shell, ShellResult, first_line
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import CommandResult

SNAPSHOTS = "swe-srl/snapshot"
SNAPSHOT_LABEL = "swe-srl.snapshot"
"""Of a snapshot that is kept: `trajectory@k`."""
TEMPORARY_LABEL = "swe-srl.temporary"
"""Of a snapshot that ends with its run."""
_MAX_LAYERS = 120
"""overlay2 mounts at most 128; a snapshot of a deeper sandbox is written as one layer."""

_LONG_COMMAND = "/dev/shm/swe-srl-command"
_MAX_ARGUMENT_BYTES = 120_000
"""A longer command travels as a file: the kernel takes 128 KiB in one argument."""
_FILE_SECONDS = 60.0
"""How long a file may take to be read or written: it may be a pipe that nobody is at the other end of."""
_IDLE_CONNECTIONS = 1000
_GRACE_SECONDS = 10.0
"""How long a command may outlive its time-out before the host ends it from outside."""


class _SharedConnections(UnixHTTPAdapter):
    """One pool of connections for all URLs. docker-py's has one for each, so for each container: it either closes the oldest of
    more than 25 while it is in use, or keeps connections open for every container there ever was."""

    def get_connection(self, url: bytes | str, proxies: Any = None) -> Any:
        return super().get_connection(self.socket_path, proxies)


def connect() -> docker.DockerClient:
    """A client of the daemon that answers (DOCKER_HOST is honoured). Raises UserError where none does."""
    try:
        client = docker.from_env(timeout=120)
        adapter = client.api.get_adapter(client.api.base_url)
        if isinstance(adapter, UnixHTTPAdapter):
            shared = _SharedConnections(f"http+unix://{adapter.socket_path}", 120, max_pool_size=_IDLE_CONNECTIONS)
            client.api.mount("http+docker://", shared)
        client.ping()
    except DockerException as error:
        raise UserError(
            f"no Docker daemon answers ({first_line(error)}); start one with `swe-srl env docker` or set DOCKER_HOST"
        ) from error
    return client


@contextlib.contextmanager
def docker_errors(what: str) -> Iterator[None]:
    """Turn the daemon's errors into errors a user can act on; `what` names the task or image concerned."""
    try:
        yield
    except ImageNotFound as error:
        raise UserError(f"{what}: image not found ({first_line(error)})") from error
    except (APIError, DockerException, OSError) as error:
        message = first_line(error)
        if "no space left on device" in str(error).lower():
            raise UserError(
                f"{what}: the disk is full ({message}); free space, for example with `docker image prune`"
            ) from error
        if isinstance(error, OSError) and not isinstance(error, DockerException | ConnectionError | RequestException):
            raise
        raise SandboxUnavailable(
            f"{what}: the Docker daemon failed ({message}); is it still running? See `swe-srl doctor`"
        ) from error


def check_runtime(client: docker.DockerClient, name: str) -> None:
    """Raises UserError where the daemon has no container runtime of this name."""
    with docker_errors(f"runtime {name}"):
        known = sorted(client.info().get("Runtimes") or {})
    if name not in known and not name.startswith("io.containerd."):  # such a name is looked up when a container starts
        raise UserError(
            f"runtime {name}: the Docker daemon has none of this name; it has {', '.join(known)}. Install it and name it under "
            "`runtimes` in /etc/docker/daemon.json"
        )


def check_limits(daemon: Mapping[str, Any]) -> None:
    """Raises UserError where a daemon, by what it says of itself, would take limits and not keep them."""
    missing = [name for name in ("MemoryLimit", "PidsLimit", "CpuCfsQuota") if not daemon.get(name)]
    if missing:
        raise UserError(
            f"the Docker daemon cannot limit what a sandbox uses (it lacks {', '.join(missing)}); a rootless one needs a machine "
            "with cgroup v2, with cpu, memory and pids delegated to its user"
        )


@functools.lru_cache(maxsize=8)
def _processors(client: docker.DockerClient) -> int:
    """Of the daemon's machine, which need not be this one. Raises UserError where the daemon cannot limit their use."""
    daemon = client.info()
    check_limits(daemon)
    return int(daemon["NCPU"])


def wait_for_daemon(client: docker.DockerClient, stopping: threading.Event, seconds: float = 60.0) -> bool:
    """Wait until the daemon answers, as it does some time after it was restarted. False once `stopping` is set."""
    end = time.monotonic() + seconds
    while not stopping.is_set():
        try:
            client.ping()
            return True
        except (APIError, DockerException, OSError):
            if time.monotonic() > end:
                return True  # the next attempt says what is wrong
            stopping.wait(0.5)
    return False


def pool_of_containers(client: docker.DockerClient, workers: int) -> contextlib.AbstractContextManager[ThreadPoolExecutor]:
    """Threads that each drive a container. Left by an error or Ctrl-C, every container of this process is removed."""
    return threads(workers, functools.partial(remove_containers_of_this_run, client))


def remove_containers_of_this_run(client: docker.DockerClient) -> None:
    """Every container that this process has made."""
    with contextlib.suppress(APIError, DockerException, OSError):
        for container in client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={RUN_ID}"}, sparse=True):
            with contextlib.suppress(APIError):
                remove_container(container)


class DockerSandbox:
    """A container without network, capabilities, privileges or anything of the host; see `Sandbox`."""

    def __init__(self, container: Container, limits: Limits, workdir: str, depth: int) -> None:
        self.container = container
        self.workdir = workdir
        self._depth = depth
        self._limits = limits
        self._since = time.time() - 1
        self._shell = Shell(container)
        self._disk = disk_guard(container.client)  # type: ignore[arg-type]  # a container that came from a client has one
        self._closed = False
        SANDBOXES.add(1)

    @classmethod
    def start(cls, client: docker.DockerClient, image: str, limits: Limits | None = None) -> DockerSandbox:
        """Create and start a container of `image` and hold a shell open in it.

        Raises UserError where the image or the runtime is missing; of its kind SandboxUnavailable where the image has no bash
        and python3, or the daemon fails.
        """
        limits = limits or Limits()
        if limits.runtime:
            check_runtime(client, limits.runtime)
        with docker_errors(f"image {image}"):
            attributes = client.images.get(image).attrs
            workdir = attributes["Config"]["WorkingDir"] or "/"
            container = disk_guard(client).create(
                client,
                image,
                limits.disk_bytes,
                entrypoint=["sleep"],
                command=["infinity"],
                init=True,
                auto_remove=True,
                working_dir="/",  # the daemon makes the one of the image where an agent has removed it
                network_mode="none",
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=limits.pids,
                mem_limit=limits.memory_bytes,
                memswap_limit=limits.memory_bytes,  # of both together
                nano_cpus=int(min(limits.cpus, _processors(client)) * 1e9),
                ulimits=[
                    Ulimit(name="fsize", soft=limits.file_bytes, hard=limits.file_bytes),
                    Ulimit(name="nofile", soft=limits.open_files, hard=limits.open_files),
                    Ulimit(name="core", soft=0, hard=0),
                ],
                ipc_mode="private",
                log_config=LogConfig(type="none"),  # what is written to /proc/1/fd/1 would fill the host's disk
                hostname="testbed",
                runtime=limits.runtime,
                labels={RUN_LABEL: RUN_ID},
            )
            sandbox = cls(container, limits, workdir, len(attributes["RootFS"]["Layers"]))
            try:
                container.start()
                sandbox._shell.connect()
            except SandboxLost as error:
                sandbox.close()
                raise SandboxUnavailable(
                    f"image {image}: no shell can be held open in it, it needs bash and python3 ({error})"
                ) from error
            except BaseException:
                sandbox.close()
                raise
        return sandbox

    def execute(
        self, command: str, *, timeout: float, env: Mapping[str, str] | None = None, session: bool = False
    ) -> CommandResult:
        """See `Sandbox.execute`."""
        command = command.encode("utf-8", "replace").decode()  # JSON may hold half of a surrogate pair
        if len(command.encode()) > _MAX_ARGUMENT_BYTES:
            self.write_file(_LONG_COMMAND, command.encode())
            command = f". {_LONG_COMMAND}"
        argv = ["bash", "-c", SESSION_SCRIPT, "bash", command] if session else ["bash", "-c", command]
        started = time.monotonic()
        result = self._run(argv, env=env, state=SESSION_FILE if session else "", timeout=timeout)
        seconds = time.monotonic() - started
        if result.shell_died:  # it alone, or everything?
            with self._said_why():
                self._check_alive()
        return CommandResult(
            output=result.output.decode("utf-8", errors="replace"),
            returncode=None if result.timed_out else result.exit_code,
            seconds=seconds,
            dropped_bytes=result.dropped_bytes,
        )

    def read_file(self, path: str, most: int | None = None) -> bytes:
        """See `Sandbox.read_file`."""
        most = self._limits.output_bytes if most is None else most
        result = self._run(["cat", "--", path], timeout=_FILE_SECONDS, output_bytes=most)
        if result.exit_code != 0:
            raise FileNotFoundError(f"{path} in the sandbox: {_reason(result)}")
        if result.dropped_bytes:
            raise ValueError(f"{path} in the sandbox: larger than {most} bytes")
        return result.output

    def write_file(self, path: str, content: bytes) -> None:
        """See `Sandbox.write_file`."""
        script = 'folder=$(dirname -- "$1"; echo .); mkdir -p -- "${folder%??}" && cat > "$1"'  # its name may end in line ends
        result = self._run(["bash", "-c", script, "bash", path], stdin=content, timeout=_FILE_SECONDS)
        if result.exit_code != 0:
            raise OSError(f"{path} in the sandbox: {_reason(result)}")

    def snapshot(self, name: str | None = None) -> Snapshot:
        """See `Sandbox.snapshot`. The container stands still meanwhile, so that no file is caught half-written.

        The image's layer is what differs from the sandbox's own image, so snapshots along one sandbox do not pile up layers.
        """
        image = snapshot_image(name)
        client: Any = self.container.client
        label = {TEMPORARY_LABEL: ""} if name is None else {SNAPSHOT_LABEL: name}
        labels = {RUN_LABEL: RUN_ID, **label}  # the first is the container's, and Podman leaves it behind
        try:
            source = self.container if self._depth < _MAX_LAYERS else self._flattened(client)
            try:
                commit(source, image, {"Labels": labels, "WorkingDir": self.workdir})
            finally:
                if source is not self.container:
                    remove_container(source)
            return Snapshot(image, tuple(client.api.inspect_image(image)["RootFS"]["Layers"]))
        except (APIError, DockerException, OSError) as error:
            if isinstance(error, APIError) and error.status_code not in (404, 409):
                with docker_errors(f"snapshot {name or image}"):
                    raise
            with self._said_why():
                raise SandboxLost(f"the container no longer answers: {first_line(error)}") from error

    def close(self) -> None:
        """See `Sandbox.close`."""
        if not self._closed:
            self._closed = True
            SANDBOXES.add(-1)
            self._disk.forget(str(self.container.id))
            with docker_errors("removing a sandbox"):
                remove_container(self.container)
            self._shell.close()

    def __enter__(self) -> DockerSandbox:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _flattened(self, client: Any) -> Container:
        """A container that was never started, of an image with all files in one layer."""
        settings = self.container.attrs["Config"]
        self.container.pause()
        try:
            answer = client.api.import_image_from_data(self.container.export())
        finally:
            self.container.unpause()
        merged = json.loads(answer.splitlines()[-1])["status"]
        made: Container = client.containers.create(merged, ["bash"], environment=settings["Env"], labels={RUN_LABEL: RUN_ID})
        return made

    def _run(self, argv: Sequence[str], **options: Any) -> ShellResult:
        options.setdefault("output_bytes", self._limits.output_bytes)
        with self._said_why():
            result = self._shell.run(argv, workdir=self.workdir, grace=_GRACE_SECONDS, **options)
        if result.exit_code is None:
            self._kill_everything()
        return result

    @contextlib.contextmanager
    def _said_why(self) -> Iterator[None]:
        try:
            yield
        except SandboxLost as error:
            reason = self._disk.reason(str(self.container.id))
            inside = reason is not None or ended_from_inside(self.container, self._since)
            raise SandboxLost(reason or str(error), from_inside=inside) from error

    def _check_alive(self) -> None:
        """Raise SandboxLost where the container was killed and not only a process in it."""
        time.sleep(0.1)  # its processes end a moment before the daemon notes its end
        self._run(["true"], timeout=_GRACE_SECONDS)
        try:
            self.container.reload()
        except (APIError, DockerException, OSError) as error:
            raise SandboxLost(f"the container no longer answers: {first_line(error)}") from error
        if self.container.status != "running":
            raise SandboxLost("the container no longer answers: it was killed")

    def _kill_everything(self) -> None:
        """The shell does not answer: end every process by starting the container again, or give it up."""
        try:
            self.container.restart(timeout=0)  # its files stay, and with them the state of the long-lived shell
            self._shell.close()
        except (APIError, DockerException, OSError) as error:
            self.close()
            raise SandboxLost("a command could not be killed at its time-out; the container was removed") from error


def _reason(result: ShellResult) -> str:
    """Why a file could not be read or written."""
    if result.timed_out or result.exit_code is None:
        return f"stopped at its time-out of {_FILE_SECONDS:g} s"
    return result.output.decode(errors="replace").strip()


def snapshot_image(name: str | None) -> str:
    """The image of this run's snapshot `trajectory@k`, known before it is made; a new one for a snapshot without a name."""
    return f"{SNAPSHOTS}:{hashlib.sha256(f'{RUN_ID} {name or uuid.uuid4()}'.encode()).hexdigest()[:24]}"


def remove_image(client: docker.DockerClient, name: str) -> None:
    """Remove an image. One that is gone already is no error; one that a container still uses stays."""
    try:
        client.api.remove_image(name)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


def remove_container(container: Container) -> None:
    """Remove a container whatever it is doing, and wait until it is gone; one that is gone already is no error."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if error.status_code != 409:
            raise
    for _ in range(100):  # 409: someone else is removing it
        try:
            container.reload()
        except NotFound:
            return
        time.sleep(0.1)
