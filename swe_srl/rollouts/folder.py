"""The folder of a run of rollouts.

    settings.json       what decided them
    rollouts.jsonl      one rollout a line, as ATIF, written as each one ends; `swe-srl import` reads it
    unfinished.jsonl    those that the infrastructure ended, with the turns they had; made again by the next run

Invariant: a folder holds rollouts of one set of settings. A rollout that ended by itself is not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from swe_srl.environments.journal import Journal
from swe_srl.errors import UserError
from swe_srl.rollouts.record import read_record, without_tokens
from swe_srl.trajectories.atif import from_atif
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import DocumentError
from swe_srl.trajectories.storage import to_line, write_lines

SETTINGS, ROLLOUTS, UNFINISHED = "settings.json", "rollouts.jsonl", "unfinished.jsonl"


class RolloutFolder:
    """An open folder. Use it as a context manager; one process at a time has it open."""

    def __init__(self, path: Path, settings: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Raises UserError where another run has it open, its rollouts were made with other settings, or a line is damaged.

        settings: JSON values. overwrite: forget what it holds.
        """
        self.path = path
        self._rollouts = Journal(path / ROLLOUTS, "run of rollouts", overwrite=overwrite)
        try:
            self.finished = {run.id: run for run in _read(self._rollouts.lines(), path / ROLLOUTS)}
            """By id: the rollouts that ended by themselves, without their tokens."""
            if self.finished:
                _check_settings(path / SETTINGS, settings)
            write_lines(path / SETTINGS, [json.dumps(settings, indent=1)])
            self._unfinished = Journal(path / UNFINISHED, "run of rollouts", overwrite=True)
        except BaseException:
            self._rollouts.close()
            raise

    def append(self, rollout: Trajectory) -> None:
        """Write one rollout. Raises OSError where there is no room for it, ValueError where it cannot be written as ATIF."""
        journal = self._rollouts if read_record(rollout).error is None else self._unfinished
        journal.append(to_line(rollout))

    def __enter__(self) -> RolloutFolder:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._rollouts.close()
        self._unfinished.close()


def read_rollouts(path: Path) -> tuple[list[Trajectory], list[Trajectory]]:
    """The rollouts of a folder that ended by themselves, and those that did not; without their tokens.

    Raises UserError where it holds none.
    """
    if not (path / ROLLOUTS).is_file():
        raise UserError(f"{path}: holds no {ROLLOUTS}; make rollouts with `swe-srl rollout … --out {path}`")
    finished, unfinished = (
        list(_read(_whole_lines(file), file)) if file.is_file() else [] for file in (path / ROLLOUTS, path / UNFINISHED)
    )
    known = {run.id for run in finished}
    if not finished and not unfinished:
        raise UserError(f"{path / ROLLOUTS}: is empty; make rollouts with `swe-srl rollout … --out {path}`")
    return finished, [run for run in unfinished if run.id not in known]


def digest(*decided: Any) -> str:
    """A short hash of JSON values."""
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()[:24]


def _read(lines: Iterator[bytes], file: Path) -> Iterator[Trajectory]:
    for number, line in enumerate(lines, start=1):
        try:
            rollout = without_tokens(from_atif(json.loads(line)))
            read_record(rollout)
        except (ValueError, DocumentError) as error:
            what = f"{file}:{number}: not a rollout: {error}"
            raise UserError(f"{what}; name another --out, or pass --overwrite to start anew") from error
        yield rollout


def _whole_lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        yield from (line for line in lines if line.endswith(b"\n"))


def _check_settings(file: Path, settings: Mapping[str, Any]) -> None:
    try:
        former = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}), so the folder's rollouts cannot be gone on with") from error
    settings = json.loads(json.dumps(settings))
    differing = sorted(key for key in {*former, *settings} if former.get(key) != settings.get(key))
    if differing:
        key = differing[0]
        raise UserError(
            f"{file.parent}: holds rollouts made with other settings ({key} was {former.get(key)!r}, now "
            f"{settings.get(key)!r}); name another --out, or pass --overwrite to start anew"
        )
