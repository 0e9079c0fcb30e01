"""Where a run computes, through accelerate.

Invariant: one process and one device; anything else is refused by name rather than run differently from what the recipe says.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

from swe_srl.config import ModelSection
from swe_srl.errors import UserError

_MB = 1024 * 1024


def open_device(section: ModelSection, trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """The accelerator of a run, with the trackers that are to write into its folder.

    Raises UserError for a device that is not there, or a launch with several processes.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise UserError('model.device: \'cuda\' was asked for, and torch finds no CUDA device; use "auto" or "cpu"')
    # accelerate keeps the first run's settings for the whole process, and refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=section.device == "cpu",
        mixed_precision="bf16" if section.dtype == "bfloat16" else "no",
        log_with=list(trackers) or None,
        project_dir=folder,
    )
    if accelerator.num_processes > 1:
        raise UserError(f"a run takes one process; this one was launched with {accelerator.num_processes}")
    return accelerator


def reset_peak_memory() -> None:
    """Forget the peak so far, where the device can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mb() -> float:
    """Peak memory in MiB: of the CUDA device since the last reset, else of the process since it began."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / _MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MB if sys.platform == "darwin" else peak / 1024
