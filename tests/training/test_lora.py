"""Runs that train adapters, and what is exported of them."""

import itertools
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_made import trajectory
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe
from swe_srl.training import trainer
from swe_srl.training.export import export_model
from swe_srl.training.trainer import train
from swe_srl.trajectories.storage import write_jsonl

quiet = Console(quiet=True)


@pytest.fixture
def recipe(policy_folder: Path, tmp_path: Path) -> Recipe:
    write_jsonl(tmp_path / "runs.jsonl", [trajectory("a", "lib-1", ["ls", "ls"]), trajectory("b", "lib-2", ["ls"])])
    (tmp_path / "recipe.toml").write_text(f"""
seed = 5
[model]
name = "{policy_folder}"
device = "cpu"
[model.lora]
rank = 4
alpha = 8
targets = ["q_proj", "v_proj", "down_proj"]
[data]
train = ["{tmp_path / "runs.jsonl"}"]
[[stages]]
objective = "sft"
updates = 3
steps_per_update = 2
lr = 1e-2
engine = "tree"
[[stages]]
objective = "srl"
updates = 1
steps_per_update = 1
lr = 1e-3
max_refills = 0
[sampling]
samples = 2
max_tokens = 4
""")
    return load_recipe(tmp_path / "recipe.toml")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(3, 40).unsqueeze(0)).logits


def test_only_adapters_are_trained_and_saved(
    recipe: Recipe, policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    load = trainer.load_policy
    monkeypatch.setattr(trainer, "load_policy", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    train(recipe, tmp_path / "run", console=quiet)
    weights = load_file(tmp_path / "run" / "checkpoint" / "adapter_model.safetensors")
    layers = {name.split(".")[-3] for name in weights}
    assert (layers, len(weights)) == ({"q_proj", "v_proj", "down_proj"}, 2 * 3 * 2)
    assert all(part.any() for part in weights.values()), "B is zero until it is trained"
    after = dict(loaded[0][0].named_parameters())
    before = load_file(policy_folder / "model.safetensors")
    for name, values in before.items():
        kept = after.get(name, after.get(name.replace(".weight", ".base_layer.weight")))
        assert kept is not None
        assert torch.equal(kept, values)
        assert kept.grad is None


def test_what_is_exported_loads_in_transformers_and_computes_the_same(
    recipe: Recipe, policy_folder: Path, tmp_path: Path
) -> None:
    train(recipe, tmp_path / "run", console=quiet)
    export_model(tmp_path / "run", tmp_path / "adapter")
    export_model(tmp_path / "run", tmp_path / "merged", merge=True)
    base = AutoModelForCausalLM.from_pretrained(policy_folder, dtype=torch.float32)
    expected_base = logits(base)
    adapted = logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter")))
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    merged = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    assert (merged - adapted).abs().max() < 1e-5
    assert (merged - expected_base).abs().max() > 0.1
    for name in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(tmp_path / name).chat_template
    with pytest.raises(UserError, match="merged: exists already"):
        export_model(tmp_path / "run", tmp_path / "merged", merge=True)
    with pytest.raises(UserError, match=r"has no checkpoint-best/: its recipe names no evaluation\.best"):
        export_model(tmp_path / "run", tmp_path / "best", best=True)


def test_a_whole_model_is_exported_as_it_is(recipe: Recipe, tmp_path: Path) -> None:
    whole = recipe.model_copy(update={"model": recipe.model.model_copy(update={"lora": None}), "stages": recipe.stages[:1]})
    train(whole, tmp_path / "run", console=quiet)
    export_model(tmp_path / "run", tmp_path / "model")
    paths = [folder / "model.safetensors" for folder in (tmp_path / "run" / "checkpoint", tmp_path / "model")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(UserError, match="no adapter to merge; leave out --merge"):
        export_model(tmp_path / "run", tmp_path / "merged", merge=True)
    with pytest.raises(UserError, match="has no checkpoint/"):
        export_model(tmp_path, tmp_path / "other")


def test_adapters_continue_where_they_were(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recipe, tmp_path / "whole", console=quiet)
    step, calls = torch.optim.AdamW.step, itertools.count(1)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    assert train(recipe, tmp_path / "stopped", console=quiet).updates == 2
    assert train(recipe, tmp_path / "stopped", resume=True, console=quiet).updates == 4
    whole, stopped = (load_file(tmp_path / name / "checkpoint/adapter_model.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == stopped.keys()
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_layers_that_are_not_there_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    section = recipe.model.lora
    assert section is not None
    model = recipe.model.model_copy(update={"lora": section.model_copy(update={"targets": ["qkv"]})})
    with pytest.raises(UserError, match=r"model\.lora\.targets: .*qkv"):
        train(recipe.model_copy(update={"model": model}), tmp_path / "run", console=quiet)


def test_dropout_in_adapters_rules_out_the_tree(recipe: Recipe, tmp_path: Path) -> None:
    section = recipe.model.lora
    assert section is not None
    model = recipe.model.model_copy(update={"lora": section.model_copy(update={"dropout": 0.1})})
    with pytest.raises(UserError, match='engine = "tree" does not serve this model: it uses dropout'):
        train(recipe.model_copy(update={"model": model}), tmp_path / "run", console=quiet)
