"""The weights that an engine outside the trainer serves, written where it can read them.

Invariant: the files are a plain model in the served precision, adapters merged into the weights they adapt; the trained model
is read and never changed, not even by rounding. torch is imported with this module.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

_SHARED_MEMORY = Path("/dev/shm")


def save_served(model: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write configuration and weights of `model`, with or without peft adapters, for transformers and vLLM to load."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.save_pretrained(folder, state_dict=served_state(base, dtype))


@torch.no_grad()
def served_state(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state of a transformers model by its plain names, floating-point tensors in `dtype`.

    Layers that peft wraps count as the layer with its active adapters added. Tensors that the model shares are shared here.
    """
    wrapped = {name: module for name, module in model.named_modules() if hasattr(module, "get_base_layer")}
    own = {f"{name}.base_layer": module for name, module in wrapped.items()}
    state: dict[str, Tensor] = {}
    converted: dict[int, Tensor] = {}
    for key, tensor in model.state_dict().items():
        layer, _, parameter = key.rpartition(".")
        if layer in own:
            key = f"{layer.removesuffix('.base_layer')}.{parameter}"
            if parameter == "weight":
                state[key] = _merged(own[layer], tensor).to(dtype)
                continue
        elif any(key.startswith(f"{name}.") for name in wrapped):
            continue
        if tensor.is_floating_point():
            # By address, so that tied weights stay one tensor and are written once.
            tensor = converted.setdefault(tensor.data_ptr(), tensor.to(dtype))
        state[key] = tensor
    return state


def _merged(module: Any, weight: Tensor) -> Tensor:
    if module.disable_adapters or module.merged:
        return weight
    for adapter in module.active_adapters:
        weight = weight + module.get_delta_weight(adapter)
    return weight


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model folder by name, one at a time."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, opened.get_tensor(name)


@torch.no_grad()
def checksum(tensors: Iterable[tuple[str, Tensor]]) -> int:
    """A number that changes with any bit of named tensors, whatever their order and device: 64 bits.

    It tells one version of a model's weights from another; it is no protection from someone who wants two to look alike.
    """
    total = 0
    for name, tensor in tensors:
        bits = (
            tensor.detach()
            .contiguous()
            .view(-1)
            .view({1: torch.int8, 2: torch.int16, 4: torch.int32}.get(tensor.dtype.itemsize, torch.int64))
        )
        total += (zlib.crc32(name.encode()) | 1) * int(bits.sum(dtype=torch.int64))
    return total % 2**64


def room_for(model: Any, dtype: torch.dtype) -> Path:
    """Where weights can be handed over: shared memory with twice the room they need, else the folder for temporary files."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > 2 * needed:
        return _SHARED_MEMORY
    return Path(tempfile.gettempdir())


def handover(parent: str | None) -> tempfile.TemporaryDirectory[str]:
    """A new folder in `parent` for weights on their way to a server, and none that a killed process of this machine left."""
    ours = f"swe-srl-weights-{socket.gethostname()}-"
    for folder in Path(parent or tempfile.gettempdir()).glob(f"{ours}*"):
        if not _lives(int(folder.name.removeprefix(ours).partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{ours}{os.getpid()}-", dir=parent)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
