"""Which models the tree engine serves.

Invariant: a model is served only if everything that mixes tokens in it is full causal attention that transformers lets us
replace, and its logits are its head's output as it is. Anything unknown is not served.
"""

from __future__ import annotations

from typing import Any

from torch import nn

FAMILIES = frozenset(
    {"glm4", "granite", "llama", "mistral", "mixtral", "olmo2", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3"}
)
"""transformers' `model_type`s whose gradients are tested against separate sequences."""
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings that depend on a token's position alone."""


def why_not(model: Any) -> str | None:
    """Why the tree engine does not serve a transformers model; None where it does."""
    config = model.config
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type!r} is not one that tree training is tested with ({', '.join(sorted(FAMILIES))})"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return f"its layers include {', '.join(sorted(kinds))}; a tree needs full attention in every layer"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"its attention slides over a window of {config.sliding_window} tokens; a tree needs full attention"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        return f"its rotary embedding {rope['rope_type']!r} makes a token depend on how long its sequence becomes"
    if getattr(config, "attention_dropout", 0) or any(isinstance(part, nn.Dropout) and part.p for part in model.modules()):
        return "it uses dropout, and a trunk that goes forward twice would differ from itself"
    if getattr(config, "logits_scaling", 1) != 1:
        return f"its logits are scaled by {config.logits_scaling} after the head"
    return None
