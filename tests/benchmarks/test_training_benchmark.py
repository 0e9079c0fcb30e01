import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from swe_srl.training.logprobs import sequence_logprobs


def tiny_llama(vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, max_position_embeddings=8192, **sizes)).eval()


def made(cases: ModuleType, folder: Path, repeats: int = 1) -> dict[str, Any]:
    vocabulary = cases.save_tiny(folder / "tiny")
    settings = {"model": str(folder / "tiny"), "tokens": 400, "repeats": repeats, "lr": 1e-6}
    return settings | cases.batch(cases.Shape(4, 2, 120, 6), vocabulary)


def test_both_ways_take_the_same_update(benchmark: Callable[[str], ModuleType], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    cases, training = benchmark("cases"), benchmark("training")
    case = made(cases, tmp_path, repeats=2)
    command = [training.__file__, "--work", "tree"]
    tree, separate = training._in_a_process(sys.executable, command, case, tmp_path), training.update("separate", case)
    examples = cases.examples_of(case)
    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32)
    logprobs, _ = sequence_logprobs(model, [e.prompt_ids for e in examples], [e.answer_ids for e in examples])
    # With one update a batch the gradient of grpo's loss is that of advantage times log-probability, by tokens, then samples.
    advantages = torch.tensor([e.advantage for e in examples])
    (-(advantages * logprobs.mean(1)).mean()).backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
    assert tree["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert separate["grad_norm"] == pytest.approx(expected, rel=1e-5)
    assert tree["forward_tokens"] < separate["forward_tokens"]
    assert [len(found["seconds"]) for found in (tree, separate)] == [2, 2]
    parameters = sum(p.numel() for p in model.parameters())
    assert tree["peak_mb"] > 3 * 4 * parameters / 1e6, "gradients and two moments in float32 at least"


def test_a_real_batch_is_timed_by_phase(
    benchmark: Callable[[str], ModuleType], builtin_model: str, real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from swe_srl.policy import model

    training, tokenizer = benchmark("training"), model.load_tokenizer(builtin_model)
    monkeypatch.setattr(model, "load_policy", lambda name: (tiny_llama(len(tokenizer)), tokenizer))
    size = {"steps": 2, "samples": 2, "max_tokens": 3, "max_observation_chars": 200}
    case = {"model": builtin_model, "data": str(real_data / "trajectories"), "tokens": 4096, "lr": 1e-6, **size}
    found = training.real_batch("tree", case)
    phases = [name for name in found if name.endswith(" s")]
    assert phases == ["read s", "tokenise s", "sample s", "reward s", "update s"]
    assert (found["steps"], found["samples"]) == (2, 4)
    assert 4 <= found["answer tokens"] <= 4 * 3
    assert found["tokens computed"] < found["tokens separate"]
