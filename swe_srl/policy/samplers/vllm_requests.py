"""What is asked of vLLM, in-process or as a server, for one call of `Sampler.sample`.

Invariant: both get the same request for the same prompt, place and options. Nothing is left to the defaults of vLLM or of the
model's generation settings: what is sampled from is softmax(logits / temperature), whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from swe_srl.policy.base import SamplingOptions


def request(options: SamplingOptions, place: int, ends: Iterable[int]) -> dict[str, Any]:
    """Fields of SamplingParams, and of the completions API, for the prompt at `place` of a call.

    `logprobs` 0 asks for the sampled token's alone. Sample s draws with seed + s: prompts get seeds far from each other.
    """
    return {
        "n": options.n,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "seed": random.Random(f"{options.seed}/{place}").getrandbits(62),
        "stop": list(options.stop),
        "include_stop_str_in_output": True,
        "stop_token_ids": sorted(ends),
        "logprobs": 0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }


def trajectory_order(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Places of the prompts, those that share most beside each other: the steps of a trajectory in their order.

    In the order of the token ids a prompt follows the one that it continues, so its prefix is still cached.
    """
    keys = [tuple(prompt) for prompt in prompts]
    return sorted(range(len(prompts)), key=keys.__getitem__)


def stopped(reason: str) -> bool:
    """Whether vLLM's finish reason says that an end id or a stop string ended the sample. Raises RuntimeError for a failure."""
    if reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM did not finish a sample: {reason}")
    return reason == "stop"
