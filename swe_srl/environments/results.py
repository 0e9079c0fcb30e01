"""The results of a replay in its run folder: `replay.jsonl`, one whole trajectory a line, written as each one ends.

Invariant: of several lines for one replay the last one counts; see `journal` for how lines are written.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from swe_srl.environments import normalise
from swe_srl.environments.fidelity import TrajectoryReplay
from swe_srl.environments.journal import Journal
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
        self._journal = Journal(folder / FILE, "replay", overwrite=overwrite)
        try:
            self.finished = dict(self._read())
            """By key: the replays that reached their end."""
        except BaseException:
            self._journal.close()
            raise

    def append(self, key: str, replay: TrajectoryReplay) -> None:
        """Write one result. Raises OSError where there is no room for it; the file is then as it was."""
        self._journal.append(json.dumps({"key": key, **replay.to_json()}))

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._journal.close()

    def _read(self) -> Iterator[tuple[str, TrajectoryReplay]]:
        for number, line in enumerate(self._journal.lines(), start=1):
            try:
                row = json.loads(line)
                key, replay = str(row.pop("key")), TrajectoryReplay.from_json(row)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"{self._journal.path}:{number}: not a result of a replay: {error}"
                raise UserError(f"{what}; name another --out, or pass --overwrite to start anew") from error
            if replay.error is None:
                yield key, replay
