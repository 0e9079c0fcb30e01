"""Where a run computes, through accelerate.

Invariant: a device for each process; what the recipe does not say or cannot have is refused by name.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from accelerate.utils import DistributedType, InitProcessGroupKwargs  # type: ignore[import-untyped]
from torch.distributed import DistError
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from transformers.utils.logging import disable_progress_bar

from swe_srl.config import ModelSection, Recipe
from swe_srl.errors import UserError
from swe_srl.training.processes import Processes

_MB = 1024 * 1024
_SERVED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def open_device(section: ModelSection, trackers: Sequence[str] = (), folder: Path | None = None) -> Accelerator:
    """The accelerator of a run, with the trackers that are to write into its folder.

    Raises UserError for a device that is not there, or a launch that would shard or place the model in another way.
    """
    if section.device == "cuda" and not torch.cuda.is_available():
        raise UserError('model.device: \'cuda\' was asked for, and torch finds no CUDA device; use "auto" or "cpu"')
    # accelerate keeps the first run's settings for the whole process, and refuses others.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        accelerator = Accelerator(
            # accelerate takes several processes without an accelerator for as many single ones, unless it is told.
            cpu=section.device == "cpu" or (launched() > 1 and not torch.accelerator.is_available()),
            mixed_precision="bf16" if section.dtype == "bfloat16" else "no",
            log_with=list(trackers) or None,
            project_dir=folder,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=section.process_timeout))],
        )
    except DistError as error:
        seconds = f"{section.process_timeout:.0f} seconds (model.process_timeout)"
        raise UserError(f"not all of {launched()} processes met within {seconds}: {error}") from error
    if accelerator.distributed_type not in _SERVED:
        raise UserError(
            f"launched for {accelerator.distributed_type.value}: model.weights decides how several processes share the model; "
            "launch them without --use_fsdp, --use_deepspeed and the like"
        )
    if accelerator.num_processes != launched():
        raise UserError(
            f"launched as one of {launched()} processes, and accelerate sees {accelerator.num_processes} on this device"
        )
    return accelerator


def open_processes(accelerator: Accelerator, recipe: Recipe) -> Processes:
    """This process among those of a run. Raises UserError for what several cannot do."""
    check_several(recipe, accelerator.num_processes)
    processes = Processes.of(accelerator.process_index, accelerator.num_processes, recipe.model.process_timeout)
    if not processes.first:
        disable_progress_bar()
    return processes


def check_several(recipe: Recipe, processes: int) -> None:
    """Raises UserError for what a recipe asks for and so many processes cannot do."""
    if processes == 1:
        return
    if recipe.model.lora is not None and recipe.model.lora.dropout:
        raise UserError(f"model.lora.dropout draws in each process for itself: this is one of {processes}; set it to 0")


def mesh_of(accelerator: Accelerator, section: ModelSection) -> DeviceMesh | None:
    """What the weights are sharded over; None where each process has all of them."""
    if section.weights == "replicated" or accelerator.num_processes == 1:
        return None
    return init_device_mesh(accelerator.device.type, (accelerator.num_processes,))


def launched() -> int:
    """How many processes a launcher says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def one_process(command: str) -> None:
    """Raises UserError where a command that takes one process was launched with several."""
    if launched() > 1:
        raise UserError(f"{command} takes one process; this one was launched with {launched()}")


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
