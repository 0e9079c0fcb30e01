"""A JSON Lines file that results are added to as they are made, so that a run that is killed keeps what it had.

Invariant: a line is in the file completely or not at all, whatever is killed or full. One process at a time writes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from swe_srl.errors import UserError


class Journal:
    """An open file of lines. Use it as a context manager."""

    def __init__(self, path: Path, what: str, *, overwrite: bool = False) -> None:
        """Open or make the file.

        what: what writes there, for the message of the UserError that is raised where another one does.
        overwrite: forget what it holds.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if overwrite:
                os.ftruncate(self._file, 0)
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"{path}: another {what} is writing there; wait for it or name another --out") from None

    def lines(self) -> Iterator[bytes]:
        """What the file holds, line by line. A last line that was cut off by a kill is removed."""
        with self.path.open("rb") as file:
            end = 0
            for line in file:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, end)
                    return
                end += len(line)
                yield line

    def append(self, line: str) -> None:
        """Write one line, given without its end. Raises OSError where there is no room for it; the file is then as it was."""
        rest = f"{line}\n".encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise

    def close(self) -> None:
        """Let another process write."""
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
