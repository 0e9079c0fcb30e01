"""Rows of tabular sources: parquet files and data sets of the Hugging Face Hub, as JSON values.

Invariant: rows stream; a row's value holds JSON types only: a date becomes its ISO text, bytes their UTF-8 text, NaN (a missing
number) null. Needs the packages of the extra `data`, imported when a source asks for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HUB = "hf:"
_HUB_NAME = re.compile(r"hf:(?P<name>.+?)(?::(?P<split>[\w.-]+))?")
_BATCH = 16
"""Rows decoded at a time: a row can be megabytes."""


class MissingPackage(Exception):
    """A package of the extra `data` is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"needs the package {package}: pip install 'swe-srl[data]'")


def parquet_rows(path: Path) -> Iterator[Any]:
    """The rows of a parquet file. Raises MissingPackage, and what pyarrow raises (OSError, ValueError)."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingPackage("pyarrow") from None
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            yield from map(plain, batch.to_pylist())


def hub_rows(source: str) -> Iterator[Any]:
    """The rows of `hf:OWNER/DATASET[:SPLIT]`, or of all its splits in order; a local folder may stand for the name.

    Raises MissingPackage, and whatever `datasets` raises.
    """
    try:
        import datasets
    except ImportError:
        raise MissingPackage("datasets") from None
    match = _HUB_NAME.fullmatch(source)
    if match is None:
        raise ValueError("expected hf:OWNER/DATASET or hf:OWNER/DATASET:SPLIT")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(match["name"], split=match["split"], streaming=True)
    for split in loaded.values() if hasattr(loaded, "values") else [loaded]:
        yield from map(plain, split)


def plain(value: Any) -> Any:
    """The value with JSON types only."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
