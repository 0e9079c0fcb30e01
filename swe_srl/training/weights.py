"""Saving and loading what is trained: all weights, or the adapter alone.

Invariant: `load_weights` of what `save_weights` wrote gives every trained parameter back bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swe_srl.config import LoraSection
from swe_srl.errors import UserError


def is_adapter(folder: Path) -> bool:
    """Whether a saved model is an adapter without the weights it adapts."""
    return (folder / "adapter_config.json").is_file()


def add_adapter(model: Any, section: LoraSection) -> Any:
    """The model with new adapters, in which nothing else is trained. Raises UserError where peft or the layers are missing."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError("model.lora needs the package peft: pip install 'swe-srl[lora]'") from error
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.targets or "all-linear",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"model.lora.targets: {error}") from error


def save_weights(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write weights (or the adapter) and tokenizer, as transformers and peft do."""
    # peft would ask the Hub whether the vocabulary was resized.
    options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)


def load_weights(model: Any, folder: Path) -> None:
    """Put saved weights (or a saved adapter) into a model of the same shape."""
    import torch

    if is_adapter(folder):
        from peft import set_peft_model_state_dict
        from peft.utils import load_peft_weights

        set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
        return
    from transformers import AutoModelForCausalLM

    model.load_state_dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict())
