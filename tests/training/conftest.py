"""A tiny random Llama and a byte-level tokenizer, built offline, and a recipe that trains it on hand-made trajectories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import trajectory
from scripted import ScriptedSampler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from swe_srl.config import Recipe
from swe_srl.recipes import load_recipe
from swe_srl.training import trainer
from swe_srl.trajectories.storage import write_jsonl

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.chat_template = CHATML
    return fast


def tiny_llama(vocab_size: int = 258, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        initializer_range=0.2,
        eos_token_id=256,
        bos_token_id=None,
        pad_token_id=256,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    tokenizer: Any = tiny_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(policy_folder: Path, tmp_path: Path) -> Recipe:
    runs = [trajectory("a", "lib-1", ["ls", "ls"]), trajectory("b", "lib-2", ["ls"]), trajectory("c", "held-1", ["ls", "ls"])]
    write_jsonl(tmp_path / "runs.jsonl", runs)
    path = tmp_path / "recipe.toml"
    path.write_text(f"""
seed = 5
[model]
name = "{policy_folder}"
device = "cpu"
[data]
train = ["{tmp_path / "runs.jsonl"}"]
hold_out_tasks = ["held-*"]
[sampling]
samples = 3
max_tokens = 8
[[stages]]
objective = "sft"
updates = 2
steps_per_update = 2
lr = 1e-3
[[stages]]
objective = "srl"
updates = 2
steps_per_update = 2
lr = 1e-3
max_refills = 1
""")
    return load_recipe(path)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[ScriptedSampler]:
    monkeypatch.setattr(trainer, "open_sampler", lambda sampling, model, tokenizer: ScriptedSampler(model, tokenizer))
    monkeypatch.setattr(ScriptedSampler, "script", [])
    monkeypatch.setattr(ScriptedSampler, "asked", [])
    return ScriptedSampler
