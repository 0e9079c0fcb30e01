"""The results of a replay in its run folder: `replay.jsonl`, one whole trajectory a line, written as each one ends.

Invariant: a line is in the file completely or not at all, whatever is killed or full; of several lines for one replay the last
one counts. One process at a time writes.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swe_srl.environments import normalise
from swe_srl.environments.fidelity import TrajectoryReplay
from swe_srl.environments.marks import content_digest
from swe_srl.errors import UserError
from swe_srl.trajectories.model import Trajectory

FILE = "replay.jsonl"
_VERSION = 1
"""Part of every key: raise it when the code changes what is executed, compared or kept."""


def replay_key(trajectory: Trajectory, image: str, options: Any) -> str:
    """What decides a replay's result: the trajectory's content, the image, the options and the rules of comparison.

    options: JSON values. Equal keys are one replay, which need not be run twice.
    """
    decided = [_VERSION, inspect.getsource(normalise), content_digest(trajectory), image, options]
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:24]


class Results:
    """An open results file. Use it as a context manager."""

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        """Open or make the file. Raises UserError where another replay writes to it, or a line of it is damaged.

        overwrite: forget what it holds.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if overwrite:
                os.ftruncate(self._file, 0)
            self.finished = dict(self._read())
            """By key: the replays that reached their end."""
        except BlockingIOError:
            os.close(self._file)
            raise UserError(f"{self._path}: another replay is writing there; wait for it or name another --out") from None
        except BaseException:
            os.close(self._file)
            raise

    def append(self, key: str, replay: TrajectoryReplay) -> None:
        """Write one result. Raises OSError where there is no room for it; the file is then as it was."""
        line = (json.dumps({"key": key, **replay.to_json()}) + "\n").encode()
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def _read(self) -> Iterator[tuple[str, TrajectoryReplay]]:
        with self._path.open("rb") as file:
            end = 0
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    os.ftruncate(self._file, end)  # cut off by a kill
                    return
                end += len(line)
                try:
                    row = json.loads(line)
                    key, replay = str(row.pop("key")), TrajectoryReplay.from_json(row)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    what = f"{self._path}:{number}: not a result of a replay: {error}"
                    raise UserError(f"{what}; name another --out, or pass --overwrite to start anew") from error
                if replay.error is None:
                    yield key, replay
