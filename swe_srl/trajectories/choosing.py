"""Which trajectories are kept: filters, outcomes from a results file, excluded tasks and duplicates.

Invariant: a decision depends only on the trajectory and on those that came before it, never on chance; what is not kept has one
reason, and the reasons' counts add up to what was filtered.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from swe_srl.errors import UserError
from swe_srl.trajectories.actions import names_of
from swe_srl.trajectories.documents import Skipped, read_documents
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.tables import MissingPackage, hub_rows

NEAR = 0.9
"""Share of actions (Jaccard index of the sets) from which on two runs of one task are near duplicates."""
VERIFIED = "swe-bench-verified"
"""Name of the one benchmark whose instances are fetched, from the Hub through `datasets`; others come as a file of ids."""

Duplicates = Literal["exact", "near"]

_ID_KEYS = ("instance_id", "task_id", "id")
_TASK_NAME = re.compile(r"(?P<owner>[\w.-]+?)__(?P<name>[\w.-]+?)(?:-\d+|\.[0-9a-f]{6,}\..+)")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which trajectories an import keeps; the defaults keep all."""

    resolved_only: bool = False
    """Only those whose source, or the results, say that they solved their task."""
    min_steps: int | None = None
    max_steps: int | None = None
    formats: frozenset[str] = frozenset()
    """Only those read from one of these formats; empty for any."""
    max_characters: int | None = None
    """Only those of at most so many characters in all their turns."""
    tools: frozenset[str] = frozenset()
    """Only those that call no other tools; empty for any."""
    repositories: tuple[str, ...] = ()
    """Only those of a repository `owner/name` that one of these patterns matches; empty for any."""
    models: tuple[str, ...] = ()
    """Only those by a model that one of these patterns matches; empty for any."""
    excluded: frozenset[str] = frozenset()
    """None of these tasks."""

    def __post_init__(self) -> None:
        from swe_srl.trajectories.readers import READERS

        unknown = self.formats - {reader.name for reader in READERS}
        if unknown:
            known = ", ".join(reader.name for reader in READERS)
            raise UserError(f"--format {', '.join(sorted(unknown))}: unknown format; known: {known}")
        if self.min_steps is not None and self.max_steps is not None and self.min_steps > self.max_steps:
            raise UserError(f"--min-steps {self.min_steps} is more than --max-steps {self.max_steps}")

    def reason(self, trajectory: Trajectory, steps: int) -> str | None:
        """Why a trajectory of so many steps is not kept: the first rule that it breaks; None when it passes."""
        rules = {
            "excluded task": trajectory.task_id in self.excluded,
            "other format": bool(self.formats) and trajectory.format not in self.formats,
            "not resolved": self.resolved_only and trajectory.resolved is not True,
            "too few steps": self.min_steps is not None and steps < self.min_steps,
            "too many steps": self.max_steps is not None and steps > self.max_steps,
            "too long": self.max_characters is not None and characters(trajectory) > self.max_characters,
            "other tools": bool(self.tools) and not names_of(turn.action for turn in trajectory.turns) <= self.tools,
            "other repository": bool(self.repositories) and not _matches(repository(trajectory), self.repositories),
            "other model": bool(self.models) and not _matches(trajectory.model, self.models),
        }
        return next((name for name, broken in rules.items() if broken), None)


@dataclass(slots=True)
class DuplicateFinder:
    """Finds trajectories that repeat an earlier one. Keeps 8 bytes for each action seen."""

    exact: dict[bytes, str] = field(default_factory=dict)
    runs: dict[str, list[tuple[str, frozenset[bytes]]]] = field(default_factory=lambda: defaultdict(list))

    def find(self, trajectory: Trajectory) -> tuple[Duplicates, str] | None:
        """How a trajectory repeats an earlier one, and that one's id; enters it when it repeats none."""
        whole = _digest([[turn.role, turn.text, _calls(turn)] for turn in trajectory.turns])
        if whole in self.exact:
            return "exact", self.exact[whole]
        actions = frozenset(_digest(_calls(step.turn)) for step in trajectory.steps())
        for earlier, known in self.runs[trajectory.task_id]:
            if actions and len(actions & known) >= NEAR * len(actions | known):
                return "near", earlier
        self.exact[whole] = trajectory.id
        self.runs[trajectory.task_id].append((trajectory.id, actions))
        return None


def characters(trajectory: Trajectory) -> int:
    """Characters of all messages, answers, calls and observations."""
    return sum(
        len(turn.text)
        + (len(turn.observation.text) if turn.observation else 0)
        + sum(len(json.dumps(call.arguments, ensure_ascii=False)) for call in (turn.action.calls if turn.action else ()))
        for turn in trajectory.turns
    )


def repository(trajectory: Trajectory) -> str | None:
    """The task's repository as `owner/name`: from the source's `repo`, else from a task id like `owner__name-123`."""
    instance = trajectory.extra.get("instance")
    for holder in (trajectory.extra, instance if isinstance(instance, dict) else {}):
        if isinstance(holder.get("repo"), str) and holder["repo"]:
            return str(holder["repo"])
    match = _TASK_NAME.fullmatch(trajectory.task_id)
    return f"{match['owner']}/{match['name']}" if match else None


@dataclass(frozen=True, slots=True)
class Results:
    """Outcomes that stand beside the trajectories. They go before what a trajectory itself says."""

    files: Mapping[str, bool]
    """By file, where the results name files."""
    names: Mapping[str, bool]
    """By trajectory or task id."""

    def applied(self, trajectory: Trajectory, file: str) -> Trajectory:
        """The trajectory with the outcome that the results give for its file, its id or its task."""
        parts = Path(file).parts
        outcomes = [self.files.get("/".join(parts[-n:])) for n in range(len(parts), 0, -1)]
        outcomes += [self.names.get(trajectory.id), self.names.get(trajectory.task_id)]
        outcome = next((value for value in outcomes if value is not None), None)
        return trajectory if outcome is None else replace(trajectory, resolved=outcome)


def load_results(path: Path) -> Results:
    """Outcomes from a file: rows with `instance_id` or `file` and `resolved`; SWE-bench's report with `resolved_ids` and
    `unresolved_ids`; or an object from ids to true and false, or to objects with `resolved`.

    Raises UserError when the file holds none, or two different ones for the same name.
    """
    files: dict[str, bool] = {}
    names: dict[str, bool] = {}
    for value in _values(path, "--results"):
        for name, outcome in _outcomes(value, files):
            if names.setdefault(name, outcome) != outcome:
                raise UserError(f"--results {path}: {name} is both resolved and not; give `file` to tell its runs apart")
    if not files and not names:
        raise UserError(f"--results {path}: no outcomes; expected rows with instance_id and resolved, or resolved_ids")
    return Results(files, names)


def _outcomes(value: Any, files: dict[str, bool]) -> Iterable[tuple[str, bool]]:
    if not isinstance(value, dict):
        return
    if "resolved_ids" in value:
        for key, outcome in (("resolved_ids", True), ("unresolved_ids", False)):
            yield from ((str(name), outcome) for name in value.get(key) or ())
        return
    if "resolved" in value and not isinstance(value["resolved"], dict):
        outcome = value["resolved"]
        if isinstance(outcome, bool) and isinstance(value.get("file"), str):
            files[value["file"]] = outcome
        elif isinstance(outcome, bool):
            yield from ((value[key], outcome) for key in _ID_KEYS[:1] if isinstance(value.get(key), str))
        return
    for name, item in value.items():
        said = item.get("resolved") if isinstance(item, dict) else item
        if isinstance(said, bool):
            yield name, said


def excluded_tasks(names: Iterable[str]) -> frozenset[str]:
    """Task ids from files (one a line, a JSON array, or rows with `instance_id`) and from `swe-bench-verified`.

    Raises UserError for a file without ids, and when the benchmark's list cannot be had.
    """
    return frozenset(task for name in names for task in (_verified() if name == VERIFIED else _ids(Path(name))))


def _ids(path: Path) -> set[str]:
    if not path.is_file():
        raise UserError(f"--exclude {path}: no such file (a file of task ids, or {VERIFIED})")
    if path.name.endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")):
        found = set()
        for value in _values(path, "--exclude"):
            rows = value if isinstance(value, list) else [value]
            found |= {row.get("instance_id") if isinstance(row, dict) else row for row in rows}
        ids = {item for item in found if isinstance(item, str)}
    else:
        ids = {line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()} - {""}
    if not ids:
        raise UserError(f"--exclude {path}: no task ids in it")
    return ids


def _verified() -> set[str]:
    try:
        return {row["instance_id"] for row in hub_rows("hf:princeton-nlp/SWE-bench_Verified:test")}
    except MissingPackage as error:
        reason = str(error)
    except Exception as error:  # whatever `datasets` raises where it cannot reach or find the data set
        reason = f"cannot be loaded ({type(error).__name__})"
    raise UserError(f"--exclude {VERIFIED}: {reason}; or give a file with its instance ids")


def _values(path: Path, option: str) -> Iterable[Any]:
    if not path.is_file():
        raise UserError(f"{option} {path}: no such file")
    for document in read_documents(path):
        if isinstance(document, Skipped):
            place = path if document.line is None else f"{path}:{document.line}"
            raise UserError(f"{option} {place}: {document.reason}")
        yield document.value


def _matches(value: str | None, patterns: Iterable[str]) -> bool:
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)


def _calls(turn: Any) -> list[list[Any]]:
    return [[call.name, call.arguments] for call in (turn.action.calls if turn.action else ())]


def _digest(value: Any) -> bytes:
    written = json.dumps(value, sort_keys=True, default=dict).encode(errors="replace")
    return hashlib.blake2b(written, digest_size=8).digest()
