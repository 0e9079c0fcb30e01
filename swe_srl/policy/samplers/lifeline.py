"""Runs a command that never outlives the process that asked for it.

    python -m swe_srl.policy.samplers.lifeline FOLDER COMMAND [ARGUMENT …]

Invariant: when standard input ends, by `Lifeline.close` or because whoever held its other end died, however it died, the
command and everything in its process group is ended, by force after 5 s, and FOLDER is removed. The command has a session of
its own: Ctrl-C in the terminal does not reach it. An engine holds gigabytes and would otherwise survive a run that was killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PATIENCE_S = 60.0
_GRACE_S = 5.0
"""Between asking everything to end and killing it."""
_LOG, _STATUS = "log.txt", "status"


class Lifeline:
    """A running command and the folder that goes with it."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start `command`, what it prints going to `folder`/log.txt. `folder` must exist and belong to nothing else."""
        self._log, self._status = folder / _LOG, folder / _STATUS
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder), *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=pass_fds,
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        """The command's exit status; None while it runs."""
        return int(self._status.read_text()) if self._status.exists() else None

    def last_words(self, lines: int = 20) -> str:
        """The end of what the command printed; empty once the folder is gone."""
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def close(self) -> None:
        """Kill the command, remove the folder, and return when both are done. Closing twice is closing once."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_PATIENCE_S)


def main(folder: Path, command: Sequence[str]) -> None:
    """Run the command until it ends, note its exit status in `folder`, and stay until standard input ends."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, process_group=0)
    # What was passed on is the command's alone: the other end must notice when it dies.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))

    def kill(*_: object) -> None:
        # Asked first: some of what an engine leaves in shared memory is removed only by itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            while time.monotonic() < deadline:
                time.sleep(0.02)
                os.killpg(child.pid, 0)
            os.killpg(child.pid, signal.SIGKILL)

    def note_status() -> None:
        partial = folder / f"{_STATUS}.partial"
        partial.write_text(str(child.wait()))
        partial.rename(folder / _STATUS)

    signal.signal(signal.SIGTERM, kill)
    waiting = threading.Thread(target=note_status)
    waiting.start()
    while os.read(0, 1 << 16):
        pass
    kill()
    waiting.join()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
