"""The program that `shell.Shell` holds open inside a container: it runs one command after another and frames their output.

One file, standard library only, Python 3.6 and up; its text is sent over standard input, so nothing of it is in the container's
files. Invariant: whatever a command does to its own output, directory, shell or descriptors, the next command runs. What
a command prints is only ever payload: no text in it can be taken for its end.

From the host, a request is two big-endian 32-bit sizes, a JSON object of the first size and standard input of the second.
To the host, a frame is a letter, the request's number and a size (big-endian, 1 + 4 + 4 bytes) and that many bytes:
`H` ready; `S` a command is about to start; `O` output; `E` its end (exit status, bytes dropped, timed out).
When the host goes away, so does everything in the container.
"""
# ruff: noqa: UP006, UP035
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import errno
import json
import os
import select
import signal
import struct
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

QUIET_SECONDS = 1.0
"""How long output that a background job holds open must be quiet, after the command has ended, to be taken for complete."""
KILL_SECONDS = 5.0
"""How long a killed command may take to end before it is given up."""
JOURNAL = "/dev/shm/swe-srl-shell"
CHUNK = 1 << 16
CLOCK_BOOTTIME = 7  # in `time` since Python 3.7 only
SESSION, START_TIME = 3, 19
"""Columns of /proc/PID/stat, counted from the one after the name."""


def initial_environment() -> Dict[bytes, bytes]:
    """What the container gives a process, without what the launching shell and this interpreter have added."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [entry.partition(b"=") for entry in file.read().split(b"\0") if entry]
    return {name: value for name, _, value in pairs if name not in (b"PWD", b"OLDPWD", b"SHLVL", b"_")}


def end_everything() -> None:
    """End the container: its first process ends when all others have."""
    os.kill(-1, signal.SIGKILL)
    os._exit(0)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Host:
    """The two ends of the connection."""

    def __init__(self) -> None:
        self.number = 0

    def receive(self, size: int) -> bytes:
        parts = []
        while size:
            part = os.read(0, min(size, CHUNK))
            if not part:
                end_everything()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        try:
            write_all(1, struct.pack(">cII", kind, self.number, len(payload)) + payload)
        except OSError:
            end_everything()


class Journal:
    """When the command that runs began, in memory that outlives this process: what a killed one leaves, the next one ends."""

    def __init__(self) -> None:
        self.file = os.open(JOURNAL, os.O_RDWR | os.O_CREAT, 0o600)
        begun = os.read(self.file, 20)
        if begun.isdigit() and int(begun):
            kill_all(START_TIME, lambda start: start >= int(begun))

    def begin(self) -> None:
        self.note(int(time.clock_gettime(CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")))

    def end(self) -> None:
        self.note(0)

    def note(self, ticks: int) -> None:
        try:
            os.pwrite(self.file, b"%020d" % ticks, 0)
        except OSError:  # a command may fill that memory
            pass


class Leftovers:
    """Output that background jobs of earlier commands hold open: read and thrown away, so that writing to it does not end them."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.open = []  # type: List[int]

    def add(self, descriptor: int) -> None:
        self.open.append(descriptor)
        self.poll.register(descriptor, select.POLLIN)

    def close(self, descriptor: int) -> None:
        self.poll.unregister(descriptor)
        self.open.remove(descriptor)
        os.close(descriptor)

    def pipe(self) -> Tuple[int, int]:
        """A new pipe; where no descriptor is free the oldest leftover gives way."""
        while True:
            try:
                return os.pipe()
            except OSError:
                if not self.open:
                    raise
                self.close(self.open[0])

    def drain(self, ready: List[Tuple[int, int]]) -> None:
        for descriptor, _ in ready:
            if descriptor in self.open and not read_some(descriptor):
                self.close(descriptor)


def read_some(descriptor: int) -> Optional[bytes]:
    """What is there: nothing yet is None, the end is empty."""
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        return None if error.errno == errno.EAGAIN else b""


def kill_all(column: int, matches: Callable[[int], bool]) -> None:
    """End every process but this one whose number in a column of /proc/PID/stat matches, and those they start meanwhile."""
    give_up = time.monotonic() + KILL_SECONDS / 2
    while time.monotonic() < give_up:  # a killed one may take a moment to end
        found = False
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    with open("/proc/" + name + "/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()  # the name before may hold anything
                    if fields[0] not in (b"Z", b"X") and matches(int(fields[column])):
                        os.kill(int(name), signal.SIGKILL)
                        found = True
                except OSError:
                    pass
        if not found:
            return
        time.sleep(0.001)


def spawn(argv: List[bytes], env: Dict[bytes, bytes], stdin: int, output: int) -> int:
    """Start a process in a session of its own. Raises OSError. It does not copy this process: that would take a millisecond."""
    ignored = (signal.SIGPIPE, signal.SIGXFSZ)  # by this interpreter, and that would be inherited
    if not hasattr(os, "posix_spawnp"):  # before Python 3.8
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for target, source in enumerate((stdin, output, output)):
                    os.dup2(source, target)
                for number in ignored:
                    signal.signal(number, signal.SIG_DFL)
                os.execvpe(argv[0], argv, env)
            except OSError as error:
                write_all(2, argv[0] + b": " + str(error.strerror).encode() + b"\n")
            finally:
                os._exit(127)
        return pid
    files = [(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate((stdin, output, output))]
    return os.posix_spawnp(argv[0], argv, env, file_actions=files, setsid=True, setsigdef=ignored)


class Command:
    """One command, from its start to the end of its output."""

    def __init__(self, host: Host, leftovers: Leftovers, journal: Journal, wake: int) -> None:
        self.host, self.leftovers, self.journal, self.wake = host, leftovers, journal, wake
        self.poll = leftovers.poll
        self.status = None  # type: Optional[int]
        self.stdin = None  # type: Optional[int]
        self.pending = b""
        self.sent = self.dropped = self.stdin_left = 0

    def run(self, request: Dict[str, Any], env: Dict[bytes, bytes], stdin_bytes: int) -> None:
        """Start it, feed and read it until it is over, and send its end."""
        self.limit = int(request["output_bytes"])
        self.stdin_left = stdin_bytes
        self.output, its_output = self.leftovers.pipe()
        os.set_blocking(self.output, False)
        self.is_open = True
        self.poll.register(self.output, select.POLLIN)
        deadline = time.monotonic() + float(request["timeout"])
        self.start(request, env, its_output)
        self.look()
        while self.status is None and time.monotonic() < deadline:
            self.step(deadline - time.monotonic())
            self.look()
        timed_out = self.status is None
        if timed_out:
            kill_all(SESSION, lambda session: session == self.pid)  # also those with a process group of their own
            give_up = time.monotonic() + KILL_SECONDS
            while self.status is None and time.monotonic() < give_up:
                self.step(0.01)
                self.look()
        self.close_stdin()
        self.read_the_rest(0.0 if timed_out else QUIET_SECONDS)
        if self.is_open:
            self.leftovers.add(self.output)
        self.journal.end()
        self.host.send(b"E", struct.pack(">iQ?", self.status or 0, self.dropped, timed_out))

    def start(self, request: Dict[str, Any], env: Dict[bytes, bytes], its_output: int) -> None:
        if self.stdin_left:
            its_stdin, self.stdin = self.leftovers.pipe()
            os.set_blocking(self.stdin, False)
            self.poll.register(self.stdin, select.POLLOUT)
        else:
            its_stdin = os.open("/dev/null", os.O_RDONLY)
        name = request["argv"][0]
        try:
            try:
                os.chdir("/" if os.path.exists(request["state"]) else request["workdir"])
            except OSError as error:
                os.chdir("/")
                self.emit("bash: cd: {}: {}\n".format(request["workdir"], error.strerror).encode())  # noqa: UP032
            self.journal.begin()
            self.host.send(b"S")
            self.pid = spawn([word.encode() for word in request["argv"]], env, its_stdin, its_output)
        except BlockingIOError as error:  # as bash says it at the limit of processes
            self.status = 254
            self.emit("{}: fork: {}\n".format(name, error.strerror).encode())  # noqa: UP032
        except (OSError, ValueError) as error:
            self.status = 127 if isinstance(error, FileNotFoundError) else 126
            self.emit("{}: {}\n".format(name, getattr(error, "strerror", error)).encode())  # noqa: UP032
        os.close(its_output)
        os.close(its_stdin)

    def look(self) -> None:
        """Note its end."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def step(self, seconds: float) -> bool:
        """Wait for something to happen and see to it. True where there was output."""
        ready = self.poll.poll(max(0.0, min(seconds, 60.0)) * 1000)
        heard = False
        for descriptor, event in ready:
            if descriptor == 0 and event & (select.POLLHUP | select.POLLERR):
                end_everything()
            elif descriptor == self.wake:
                os.read(self.wake, 64)
            elif descriptor == self.stdin:
                self.feed()
            elif descriptor == self.output:
                data = read_some(self.output)
                if data:
                    self.emit(data)
                    heard = True
                elif data == b"":
                    self.is_open = False
                    self.poll.unregister(self.output)
                    os.close(self.output)
        self.leftovers.drain(ready)
        return heard

    def read_the_rest(self, quiet: float) -> None:
        """What the command wrote is in the pipe by now; a background job may hold it open and write on."""
        ended = heard = time.monotonic()
        while self.is_open:
            now = time.monotonic()
            left = min(heard + quiet, ended + 5 * QUIET_SECONDS) - now
            if self.step(left):
                heard = now
            elif left <= 0:
                return
            if now > ended + 5 * QUIET_SECONDS:
                return

    def emit(self, data: bytes) -> None:
        kept = data[: max(0, self.limit - self.sent)]
        self.dropped += len(data) - len(kept)
        self.sent += len(kept)
        if kept:
            self.host.send(b"O", kept)

    def feed(self) -> None:
        assert self.stdin is not None
        if not self.pending:
            self.pending = self.host.receive(min(self.stdin_left, CHUNK))
            self.stdin_left -= len(self.pending)
        try:
            self.pending = self.pending[os.write(self.stdin, self.pending) :]
        except BlockingIOError:
            pass
        except OSError:  # it need not read to the end
            self.close_stdin()
        if not self.pending and not self.stdin_left:
            self.close_stdin()

    def close_stdin(self) -> None:
        if self.stdin is not None:
            self.poll.unregister(self.stdin)
            os.close(self.stdin)
            self.stdin = None
        while self.stdin_left:
            self.stdin_left -= len(self.host.receive(min(self.stdin_left, CHUNK)))


def main() -> None:
    """Serve requests until the host goes away."""
    try:
        with open("/proc/self/comm", "w") as file:  # an agent that kills all Python programs means its own
            file.write("swe-srl-shell")
    except OSError:  # gVisor does not know how
        pass
    host, leftovers, journal, base = Host(), Leftovers(), Journal(), initial_environment()
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)  # written to where a signal with a handler arrives
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    leftovers.poll.register(wake, select.POLLIN)
    host.send(b"H")
    while True:
        leftovers.poll.register(0, select.POLLIN)
        ready = []  # type: List[Tuple[int, int]]
        while 0 not in dict(ready):
            ready = leftovers.poll.poll()
            if wake in dict(ready):
                os.read(wake, 64)
            leftovers.drain(ready)
        size, stdin_bytes = struct.unpack(">II", host.receive(8))
        request = json.loads(host.receive(size).decode())
        leftovers.poll.register(0, 0)
        host.number = int(request["number"])
        env = {} if os.path.exists(request["state"]) else dict(base)
        if env:
            env.update((name.encode(), value.encode()) for name, value in request["env"].items())
        Command(host, leftovers, journal, wake).run(request, env, stdin_bytes)


main()
