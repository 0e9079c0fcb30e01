"""Which sampler a recipe's `sampling.engine` names."""

from __future__ import annotations

from typing import Any

from swe_srl.config import SamplingSection
from swe_srl.policy.base import Sampler


def open_sampler(sampling: SamplingSection, model: Any, tokenizer: Any) -> Sampler:
    """A sampler of the model's present weights, to be closed when it has served.

    Raises UserError where the engine is not there or cannot do what the recipe asks for.
    """
    if sampling.engine == "vllm":
        from swe_srl.policy.samplers.vllm import VllmSampler

        return VllmSampler(model, tokenizer, sampling.vllm)
    if sampling.engine == "vllm-server":
        from swe_srl.policy.samplers.vllm_server import VllmServerSampler

        return VllmServerSampler(model, tokenizer, sampling.vllm)
    from swe_srl.policy.samplers.transformers import TransformersSampler

    return TransformersSampler(model, tokenizer)
