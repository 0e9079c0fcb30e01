"""Imports trajectories of any format that is read: every document is kept, filtered out, or reported with the reason.

Invariant: read == kept + filtered + bad, counted in trajectories; a file or row that gives none counts as one bad one. A file
of which no document is in a format that is read counts once, not once a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from swe_srl.errors import UserError
from swe_srl.trajectories.choosing import DuplicateFinder, Duplicates, Filters, Results
from swe_srl.trajectories.documents import Document, Skipped, read_documents
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers import find_reader, unread_reason
from swe_srl.trajectories.sources import Source, iter_sources
from swe_srl.trajectories.storage import to_line, write_lines

Track = Callable[[Sequence[Source]], Iterable[Source]]
"""Passes sources through one by one, for example showing a progress bar."""


@dataclass(slots=True)
class FormatCount:
    """What was kept of one format."""

    trajectories: int = 0
    steps: int = 0
    malformed: int = 0
    """Answers whose action could not be read or was never executed: in the context, no steps."""


@dataclass(slots=True)
class ImportReport:
    """What an import did. `dataclasses.asdict` gives what `--json` prints."""

    read: int = 0
    kept: int = 0
    filtered: int = 0
    bad: int = 0
    steps: int = 0
    """In the trajectories kept."""
    formats: dict[str, FormatCount] = field(default_factory=dict)
    filtered_by: dict[str, int] = field(default_factory=dict)
    """How many each rule filtered."""
    reasons: list[Skipped] = field(default_factory=list)
    """Why each bad one is bad."""

    def enter_filtered(self, reason: str) -> None:
        """Count one that a rule filtered."""
        self.filtered += 1
        self.filtered_by[reason] = self.filtered_by.get(reason, 0) + 1

    def enter_bad(self, skipped: Skipped) -> None:
        """Count a bad one."""
        self.bad += 1
        self.reasons.append(skipped)

    def enter_kept(self, trajectory: Trajectory, steps: int) -> None:
        """Count one that is kept, with so many steps."""
        count = self.formats.setdefault(trajectory.format, FormatCount())
        count.trajectories += 1
        count.steps += steps
        count.malformed += sum(1 for turn in trajectory.turns if turn.is_malformed)
        self.kept += 1
        self.steps += steps


@dataclass(frozen=True, slots=True)
class Found:
    """A trajectory and where it stood."""

    trajectory: Trajectory
    file: str
    line: int | None

    def skipped(self, reason: str) -> Skipped:
        """The same place, given up."""
        return Skipped(self.file, self.line, reason)


def import_trajectories(sources: Iterable[Source]) -> Iterator[Found | Skipped]:
    """Every trajectory of the sources in order, and every place that gave none. Never raises for what a source holds."""
    first: dict[str, str] = {}
    for source in sources:
        for result in _read_source(source):
            if isinstance(result, Found) and result.trajectory.id in first:
                trajectory_id = result.trajectory.id
                yield result.skipped(f"duplicate id {trajectory_id} (first in {first[trajectory_id]})")
            else:
                if isinstance(result, Found):
                    first[result.trajectory.id] = result.file
                yield result


def _read_source(source: Source) -> Iterator[Found | Skipped]:
    file = str(source.path)
    unread: list[Skipped] = []
    any_read = False
    for document in read_documents(source.path, lambda array: find_reader(array) is not None):
        if isinstance(document, Skipped):
            yield document
            continue
        reader = find_reader(document.value)
        if reader is None:
            unread.append(Skipped(file, document.line, _placed(document, unread_reason(document.value))))
            continue
        any_read = True
        try:
            trajectory = reader.read(document.value, Origin(source.stem, document.line or document.item))
        except DocumentError as error:
            yield Skipped(file, document.line, _placed(document, f"{reader.name}: {error}"))
        else:
            yield Found(trajectory, file, document.line)
    if any_read or len(unread) < 2:
        yield from unread
    else:
        yield Skipped(file, None, f"{unread[0].reason.removeprefix('item 1: ')} ({len(unread)} rows)")


def _placed(document: Document, reason: str) -> str:
    return reason if document.item is None else f"item {document.item}: {reason}"


def run_import(
    sources: Sequence[str | Path],
    to: Path,
    filters: Filters | None = None,
    track: Track = iter,
    *,
    results: Results | None = None,
    drop: Duplicates | None = None,
    strict: bool = False,
) -> ImportReport:
    """Import files, folders, glob patterns and `hf:` names into the ATIF JSON Lines file `to`, written whole or not at all.

    `results` hold outcomes that stand beside the trajectories; `drop` says which duplicates to filter (near ones include exact
    ones). When nothing is kept, `to` is left as it was. Raises UserError when there is no source or `to` cannot be written, and
    with `strict` at the first bad one.
    """
    report = ImportReport()
    found = import_trajectories(track(iter_sources(sources, exclude=[to])))
    lines = _kept_lines(_strictly(found) if strict else found, filters or Filters(), report, results, drop, strict)
    first = next(lines, None)
    try:
        if first is not None:
            write_lines(to, chain([first], lines))
    except OSError as error:
        raise UserError(f"{to}: cannot be written: {error.strerror or error}") from error
    report.read = report.kept + report.filtered + report.bad
    return report


def _kept_lines(
    found: Iterable[Found | Skipped],
    filters: Filters,
    report: ImportReport,
    results: Results | None,
    drop: Duplicates | None,
    strict: bool,
) -> Iterator[str]:
    """The lines of what is kept; everything found is entered in the report as it passes."""
    duplicates = DuplicateFinder()
    for item in found:
        if isinstance(item, Skipped):
            report.enter_bad(item)
            continue
        trajectory = results.applied(item.trajectory, item.file) if results else item.trajectory
        steps = sum(1 for _ in trajectory.steps())
        reason = filters.reason(trajectory, steps)
        repeated = duplicates.find(trajectory) if drop and not reason else None
        if repeated and (repeated[0] == "exact" or drop == "near"):
            reason = f"{repeated[0]} duplicate"
        if reason:
            report.enter_filtered(reason)
            continue
        try:
            line = to_line(trajectory)
        except ValueError as error:
            bad = item.skipped(f"cannot be written as ATIF: {error}")
            if strict:
                raise UserError(f"{bad.place}: {bad.reason}") from None
            report.enter_bad(bad)
            continue
        report.enter_kept(trajectory, steps)
        yield line


def _strictly(found: Iterable[Found | Skipped]) -> Iterator[Found]:
    for item in found:
        if isinstance(item, Skipped):
            raise UserError(f"{item.place}: {item.reason}")
        yield item


def load(paths: Sequence[str | Path], *, skip_bad: bool = False) -> list[Trajectory]:
    """The trajectories in files, folders and glob patterns, of any format that is read.

    Raises UserError naming the first place that gave none, unless `skip_bad`; and always when there is no trajectory at all.
    """
    trajectories = []
    for result in import_trajectories(iter_sources(paths)):
        if isinstance(result, Found):
            trajectories.append(result.trajectory)
        elif not skip_bad:
            raise UserError(f"{result.place}: {result.reason}. `swe-srl import` keeps the good ones: use the file it writes")
    if not trajectories:
        raise UserError(f"no trajectory in {', '.join(map(str, paths))}")
    return trajectories
