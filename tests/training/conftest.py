"""A tiny policy, and a recipe that trains it on hand-made trajectories."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_made import trajectory
from scripted import ScriptedSampler
from tiny_models import save_policy, tiny_llama, tiny_tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from swe_srl.config import Recipe
from swe_srl.recipes import load_recipe
from swe_srl.training import trainer
from swe_srl.trajectories.storage import write_jsonl


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def policy_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "policy"
    save_policy(folder)
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
    monkeypatch.setattr(trainer, "open_sampler", lambda sampling, model, tokenizer, cluster: ScriptedSampler(model, tokenizer))
    monkeypatch.setattr(ScriptedSampler, "script", [])
    monkeypatch.setattr(ScriptedSampler, "asked", [])
    return ScriptedSampler
