"""What vLLM's workers are taught: to take new weights whole, and to say what they have.

    vllm serve MODEL --worker-extension-cls swe_srl.policy.samplers.vllm_worker.TakesWeights …

Invariant: after `take_weights` every layer computes with the new weights. `reload_weights` alone (vLLM 0.32) leaves a head that
is tied to the embeddings as it was where layers keep a packed copy of their weights, as they do on a CPU: a tied head has no
weights of its own in the file, so it counts as not loaded and its copy is not packed anew.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from swe_srl.policy.samplers.weights import checksum, stored_tensors


class TakesWeights:
    """Mixed into vLLM's worker class, which has `reload_weights` and `model_runner`."""

    reload_weights: Any
    model_runner: Any

    def take_weights(self, folder: str) -> tuple[int, int]:
        """Load the weights of a model folder in place; says what `serves` does."""
        self.reload_weights(weights_path=folder)
        layers = [layer for layer in self.model_runner.get_model().modules() if hasattr(layer, "cpu_linear")]
        owners = Counter(id(layer.weight) for layer in layers)
        for layer in layers:
            if owners[id(layer.weight)] > 1:
                layer.quant_method.process_weights_after_loading(layer)
        return self.serves(folder)

    def serves(self, folder: str) -> tuple[int, int]:
        """Checksums of the weights in a model folder, as this worker reads them, and of the parameters it has."""
        return checksum(stored_tensors(Path(folder))), checksum(self.model_runner.get_model().named_parameters())
