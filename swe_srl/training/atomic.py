"""Folders that appear complete or not at all, whenever the process is killed.

Invariant: under its own name a folder is complete and on disk. What a kill leaves behind lies beside it under other names,
which `recover_folder` puts in order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder that then appears as `final`, in the place of what was there."""
    recover_folder(final)
    partial, old = _beside(final)
    partial.mkdir(parents=True)
    write(partial)
    for path in [*partial.rglob("*"), partial]:
        _sync(path)
    if final.exists():
        os.replace(final, old)
    os.replace(partial, final)
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(final: Path) -> None:
    """After a kill: `final` is what it was before or what it was to become, and nothing is left beside it."""
    partial, old = _beside(final)
    if old.exists() and not final.exists():
        os.replace(old, final)
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder: it is gone from under its name at once, and what a kill leaves of it is `partial`."""
    partial, _ = _beside(folder)
    os.replace(folder, partial)
    shutil.rmtree(partial, ignore_errors=True)


def _beside(final: Path) -> tuple[Path, Path]:
    """Where a folder is while it is incomplete, and where its predecessor is while it is replaced."""
    return final.with_name(f"{final.name}.partial"), final.with_name(f"{final.name}.old")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
