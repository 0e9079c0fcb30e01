"""A tokenizer and a model small enough to build in a test, without any download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

CORPUS = [
    "<think>\nLook at the parser.\n</think>\n<function=bash>\n<parameter=command>grep -n parse src</parameter>\n</function>",
    "You fix a problem in a code repository, one tool call at a time. The tests fail; read the file, then edit it.",
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE with a ChatML template; like SmolLM2's, a base model's document end is not what ends a turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<filename>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|endoftext|>", chat_template=CHATML
    )


def make_tiny(family: str, **changes: Any) -> Any:
    """A random model of a transformers family, in float32; the same one every time."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {
        "vocab_size": 400,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "pad_token_id": 0,
        **changes,
    }
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()


@pytest.fixture(scope="session")
def model() -> Any:
    """A llama of 2 layers with grouped key heads."""
    return make_tiny("llama")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """Makes small random models of other families."""
    return make_tiny
