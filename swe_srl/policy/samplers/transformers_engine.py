"""A transformers model with weights of its own, which samples as the trainer's own model does; see `serving`.

Invariant: a part is computed by itself, so that its samples are the same to the bit on every engine that computes alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers.serving import Part, Serves, Weights, as_folder
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.policy.samplers.weights import checksum


class TransformersEngine:
    """Implements `swe_srl.policy.samplers.serving.Engine`."""

    def __init__(self, weights: Weights, home: Path, device: str, threads: int, ends: Sequence[int]) -> None:
        """`ends`: ids that end an answer; `threads`: of the CPU."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._home = home
        with as_folder(weights, home) as folder:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            self._model = model.to(device).eval()
            self._sampler = TransformersSampler(self._model, tokenizer, ends=frozenset(ends))
            self._serves = self._take(folder)

    def take(self, weights: Weights) -> Serves:
        """See `Engine`."""
        with as_folder(weights, self._home) as folder:
            self._serves = self._take(folder)
        return self._serves

    def serves(self) -> Serves:
        """See `Engine`."""
        return self._serves

    def context(self) -> int | None:
        """See `Engine`."""
        return self._sampler.context

    def sample(self, parts: Sequence[Part], options: SamplingOptions) -> list[list[list[Sample]]]:
        """See `Engine`."""
        return [self._sampler.sample(prompts, options, places) for prompts, places in parts]

    def prefix_cache(self) -> tuple[int, int]:
        """See `Engine`: there is none."""
        return 0, 0

    def _take(self, folder: Path) -> Serves:
        state = {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        own = self._model.state_dict()
        if unknown := state.keys() - own.keys():
            raise RuntimeError(f"the model has no {sorted(unknown)[0]}")
        with torch.no_grad():
            for name, tensor in state.items():
                own[name].copy_(tensor)
        return Serves(checksum(state.items()), (checksum((name, own[name]) for name in state),))
