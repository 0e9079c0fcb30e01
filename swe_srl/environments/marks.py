"""Which recorded steps a replay vouches for: `--require` at replay, `data.replay` in training.

Invariant: a step is vouched for only where every step before it was executed again and met the requirement; the state it was
taken in is then the one that was recorded. Everything after is marked, and what was never replayed is not vouched for either.
A mark holds for a trajectory's content, whatever file it is read from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from swe_srl.environments.fidelity import StepReplay, TrajectoryReplay
from swe_srl.errors import UserError
from swe_srl.trajectories.model import Step, Trajectory
from swe_srl.trajectories.storage import write_lines

FILE = "marks.jsonl"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a replayed step must meet for the steps after it to be vouched for."""

    name: Literal["exact", "returncode", "similarity"]
    at_least: float = 1.0
    """Of `similarity`: of the normalised texts, in [0, 1]."""

    def met_by(self, step: StepReplay) -> bool:
        """Whether a step meets it. Where the recording shows no return code, `returncode` has nothing to say against it."""
        if self.name == "exact":
            return step.exact
        if self.name == "similarity":
            return step.similarity >= self.at_least
        return step.recorded_returncode is None or step.returncode == step.recorded_returncode

    def __str__(self) -> str:
        return f"similarity>={self.at_least:g}" if self.name == "similarity" else self.name


def parse_requirement(text: str) -> Requirement:
    """Read `exact`, `returncode` or `similarity>=0.9`. Raises UserError for anything else."""
    if text in ("exact", "returncode"):
        return Requirement(cast(Literal["exact", "returncode"], text))
    if (match := re.fullmatch(r"similarity(?:>=|≥)(\d*\.?\d+)", text)) and float(match[1]) <= 1:
        return Requirement("similarity", float(match[1]))
    raise UserError(f"--require {text}: expected exact, returncode, or similarity>=X with X from 0 to 1")


@dataclass(frozen=True, slots=True)
class Mark:
    """From which step on a trajectory is marked."""

    first: int | None
    """The first marked k; None where no step is."""
    reason: str = ""


def mark(replay: TrajectoryReplay, requirement: Requirement) -> Mark:
    """The mark of a trajectory that was replayed."""
    for step in replay.steps:
        if not requirement.met_by(step):
            return Mark(step.k + 1, f"after a step whose replay is not {requirement}")
    if replay.error is not None:
        return Mark(replay.steps[-1].k + 1 if replay.steps else 0, "after the replay stopped")
    return Mark(None)


def content_digest(trajectory: Trajectory) -> str:
    """A hash of everything that decides a trajectory's replay and its comparison: not of thoughts, outcome or file format."""
    steps = [
        (
            [(call.name, call.arguments) for call in step.action.calls],
            step.turn.observation and (step.turn.observation.compared, step.turn.observation.returncode),
        )
        for step in trajectory.steps()
    ]
    run = [trajectory.id, trajectory.task_id, trajectory.scaffold, dict(trajectory.environment), trajectory.timeout_seconds]
    return hashlib.sha256(
        json.dumps([run, trajectory.workdir, trajectory.submission, steps], sort_keys=True, default=str).encode()
    ).hexdigest()[:24]


def write_marks(folder: Path, marks: Iterable[tuple[Trajectory, Mark]]) -> None:
    """Write a run folder's marks, all at once."""
    rows = (
        {"id": trajectory.id, "content": content_digest(trajectory), "first": found.first, "reason": found.reason}
        for trajectory, found in marks
    )
    write_lines(folder / FILE, map(json.dumps, rows))


class Marks:
    """The marks of a run folder, for asking about steps."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder holds none, or they are damaged."""
        file = folder / FILE
        if not file.is_file():
            raise UserError(f"{folder}: holds no marks; make them with `swe-srl replay … --out {folder} --require exact`")
        self._marks: dict[str, Mark] = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                self._marks[row["content"]] = Mark(row["first"] if row["first"] is None else int(row["first"]), row["reason"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{file}:{number}: not a line of marks: {error}") from error
        self._content: tuple[Trajectory, str] | None = None

    def against(self, step: Step) -> str | None:
        """Why a step is not vouched for; None where it is."""
        if self._content is None or self._content[0] is not step.trajectory:  # steps come trajectory by trajectory
            self._content = (step.trajectory, content_digest(step.trajectory))
        found = self._marks.get(self._content[1])
        if found is None:
            return "the trajectory was not replayed"
        return None if found.first is None or step.k < found.first else found.reason
