"""Which sampler a recipe's `sampling` names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from swe_srl.config import SamplingSection
from swe_srl.errors import UserError
from swe_srl.policy.base import Sampler

if TYPE_CHECKING:
    from swe_srl.cluster.ray import RayCluster
    from swe_srl.policy.samplers.fleet import Fitting
    from swe_srl.policy.samplers.hosting import Hosts


def open_sampler(sampling: SamplingSection, model: Any, tokenizer: Any, cluster: RayCluster | None = None) -> Sampler:
    """A sampler of the model's present weights, to be closed when it has served.

    cluster: whose nodes engines run on; None: this machine.
    Raises UserError where the engine is not there or cannot do what the recipe asks for.
    """
    if sampling.engine == "vllm-server":
        if cluster is not None:
            raise UserError("--cluster starts engines on its nodes, and 'vllm-server' is one that runs already: leave one out")
        from swe_srl.policy.samplers.vllm_server import VllmServerSampler

        return VllmServerSampler(model, tokenizer, sampling.vllm)
    if cluster is None and not sampling.has_engines:
        from swe_srl.policy.samplers.transformers import TransformersSampler

        return TransformersSampler(model, tokenizer)
    from swe_srl.policy.samplers.fleet import Fleet
    from swe_srl.policy.samplers.weights import room_for

    device = next(model.parameters()).device.type
    fitting = _fitting(sampling, device, cluster)
    room = room_for(model, fitting.dtype)
    hosts = _processes(sampling, device, room) if cluster is None else _nodes(sampling, device, cluster)
    return Fleet(model, tokenizer, fitting, hosts, room)


def _fitting(sampling: SamplingSection, device: str, cluster: RayCluster | None) -> Fitting:
    import torch

    from swe_srl.policy.samplers import transformers
    from swe_srl.policy.samplers.fleet import Fitting
    from swe_srl.policy.samplers.routing import families
    from swe_srl.policy.samplers.vllm import vllm_arguments

    each = max(1, torch.get_num_threads() // sampling.engines) if cluster is None else _threads(cluster)
    made = partial(Fitting, count=sampling.engines, restarts=sampling.restarts)
    if sampling.engine == "vllm":
        return made(
            "vllm",
            dtype=getattr(torch, sampling.vllm.dtype),
            arguments=vllm_arguments(sampling.vllm, each),
            pieces=lambda prompts, options: families(prompts, options.n * options.max_tokens, sampling.engines),
            keeps_prefixes=True,
        )
    return made(
        "transformers",
        dtype=torch.float32,
        arguments={"device": device, "threads": each},
        # As one engine would, whatever their number: what is computed together decides how it is rounded.
        pieces=lambda prompts, options: transformers.batches(prompts, options, transformers.BATCH_TOKENS),
        keeps_prefixes=False,
    )


def _processes(sampling: SamplingSection, device: str, room: Any) -> Hosts:
    from swe_srl.policy.samplers.hosting import ProcessHosts

    environments: Sequence[dict[str, str]] = [{}] * sampling.engines
    if device == "cuda" and sampling.engines > 1:
        import os

        import torch

        from swe_srl.policy.samplers.hosting import own_devices

        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        visible = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
        own = own_devices(sampling.engines, sampling.vllm.tensor_parallel, visible)
        environments = [{"CUDA_VISIBLE_DEVICES": ",".join(devices)} for devices in own]
    return ProcessHosts("vllm" if sampling.engine == "vllm" else "transformers", environments, room)


def _nodes(sampling: SamplingSection, device: str, cluster: RayCluster) -> Hosts:
    """vLLM for GPUs takes as many as a model is split over, transformers one where the trainer has one."""
    from swe_srl.policy.samplers.clustered import NodeHosts
    from swe_srl.policy.samplers.vllm import check_installed

    if sampling.engine == "vllm":
        gpus = 0 if check_installed(sampling.vllm) else sampling.vllm.tensor_parallel
        return NodeHosts(cluster, "vllm", 1 if gpus else _threads(cluster), gpus)
    gpus = int(device == "cuda")
    return NodeHosts(cluster, "transformers", 1 if gpus else _threads(cluster), gpus)


def _threads(cluster: RayCluster) -> int:
    """CPUs of an engine without a GPU: as many as the trainer has, or the largest node."""
    import torch

    return max(1, min(torch.get_num_threads(), int(cluster.most("CPU"))))
