"""Writes trajectories in another trainer's format: JSON Lines, or parquet where the file's name ends so.

Invariant: rows stream from the sources to the file, which appears whole or not at all; what cannot be written is reported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from swe_srl.errors import UserError
from swe_srl.trajectories.documents import Skipped
from swe_srl.trajectories.exports import FORMATS, Row
from swe_srl.trajectories.importing import Track, import_trajectories
from swe_srl.trajectories.sources import iter_sources
from swe_srl.trajectories.storage import write_lines

_BATCH = 64
"""Rows of a parquet row group: a prompt can be a megabyte."""
_PARQUET_ONLY = "verl"


@dataclass(slots=True)
class ExportReport:
    """What an export did. `dataclasses.asdict` gives what `--json` prints."""

    format: str
    trajectories: int = 0
    rows: int = 0
    bad: list[Skipped] = field(default_factory=list)


def run_export(sources: Sequence[str | Path], to: Path, to_format: str, track: Track = iter) -> ExportReport:
    """Write the rows of a format to `to`. Raises UserError for an unknown format, and when there is nothing to write."""
    if to_format not in FORMATS:
        raise UserError(f"--to-format {to_format}: unknown format; known: {', '.join(FORMATS)}")
    if (to_format == _PARQUET_ONLY) != (to.suffix == ".parquet"):
        wanted = "end in .parquet" if to_format == _PARQUET_ONLY else "be a JSON Lines file; only verl's rows are one table"
        raise UserError(f"--to {to}: with --to-format {to_format} it must {wanted}")
    report = ExportReport(to_format)
    rows = _rows(track(iter_sources(sources, exclude=[to])), report)
    first = next(rows, None)
    if first is None:
        raise UserError(f"no {to_format} rows in {', '.join(map(str, sources))}")
    everything = (row for part in ([first], rows) for row in part)
    try:
        if to.suffix == ".parquet":
            _write_parquet(to, everything)
        else:
            write_lines(to, map(_line, everything))
    except OSError as error:
        raise UserError(f"{to}: cannot be written: {error.strerror or error}") from error
    return report


def _rows(sources: Any, report: ExportReport) -> Iterator[Row]:
    for found in import_trajectories(sources):
        if isinstance(found, Skipped):
            report.bad.append(found)
            continue
        count = report.rows
        try:
            for row in FORMATS[report.format](found.trajectory):
                _line(row).encode()
                report.rows += 1
                yield row
        except ValueError as error:
            report.bad.append(found.skipped(f"cannot be written as {report.format}: {error}"))
        else:
            report.trajectories += report.rows > count


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _write_parquet(to: Path, rows: Iterator[Row]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("parquet needs the package pyarrow: pip install 'swe-srl[data]'") from None
    text = pyarrow.string()
    function = pyarrow.struct({"name": text, "arguments": text})
    call = pyarrow.struct({"id": text, "type": text, "function": function})
    message = {"role": text, "content": text, "name": text, "tool_call_id": text, "tool_calls": pyarrow.list_(call)}
    info = dict.fromkeys(("split", "tools", "id", "task_id", "scaffold", "model", "resolved"), text)
    schema = pyarrow.schema(
        {
            "data_source": text,
            "prompt": pyarrow.list_(pyarrow.struct(message)),
            "ability": text,
            "reward_model": pyarrow.struct({"style": text, "ground_truth": text}),
            "extra_info": pyarrow.struct({"index": pyarrow.int64(), **info}),
        }
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{os.getpid()}.partial")
    try:
        with parquet.ParquetWriter(partial, schema) as writer:
            while batch := list(islice(rows, _BATCH)):
                writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
