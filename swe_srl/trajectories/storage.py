"""Trajectories on disk: JSON Lines, one ATIF document a line.

Invariant: a file appears under its name only when it is complete; what stood there before stays until then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from swe_srl.trajectories.atif import to_atif
from swe_srl.trajectories.model import Trajectory


def to_line(trajectory: Trajectory) -> str:
    """The trajectory as one line of JSON. Raises ValueError when it cannot be written as ATIF or as JSON."""
    try:
        line = json.dumps(to_atif(trajectory), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line.encode()
        return line
    except RecursionError:
        raise ValueError("nested too deeply") from None


def write_jsonl(path: Path, trajectories: Iterable[Trajectory]) -> int:
    """Write the trajectories, one a line, and return how many. Raises ValueError for one that cannot be written."""
    return write_lines(path, map(to_line, trajectories))


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write `path`, and return the number of lines. Whatever is raised on the way leaves no trace of the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count
