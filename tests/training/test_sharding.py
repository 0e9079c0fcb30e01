"""Gradients of two processes that share a model's weights, against those of one that has them all."""

import multiprocessing
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import SLOW_TO_IMPORT
from torch.distributed.tensor import DTensor

PARTS = {"uneven": (0, 15, 22), "nothing left for one": (0, 22, 22), "even": (0, 11, 22)}
"""Where a batch of 22 is cut for the two processes."""
CASES = [
    ("tree", {}, "uneven"),
    ("tree", {"checkpointing": True}, "uneven"),
    ("tree", {"tied": True}, "nothing left for one"),
    ("tree", {"lora": True}, "uneven"),
    ("separate", {}, "uneven"),
    ("separate", {"checkpointing": True}, "nothing left for one"),
    ("separate", {"lora": True}, "even"),
    ("tree", {"half": True}, "uneven"),
    ("separate", {"half": True}, "even"),
]


def model_of(checkpointing: bool = False, tied: bool = False, lora: bool = False, half: bool = False) -> Any:
    from peft import LoraConfig, get_peft_model
    from tree.tiny_trees import tiny_model

    model = tiny_model("qwen2", tie_word_embeddings=tied)
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora:
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(model, config)
    return model


def gradients(model: Any, engine: Any, examples: list[Any], share: float, half: bool) -> tuple[dict[str, torch.Tensor], Any]:
    from swe_srl.training.losses import sft_loss

    def loss_fn(logprobs_B_T: torch.Tensor, rows: Any) -> torch.Tensor:
        return sft_loss(logprobs_B_T, rows.mask_B_T) * rows.advantages_B * share

    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        result = engine.backward(model, examples, loss_fn)
    grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in grads.items()}, result


def worker(rank: int, meeting: Path, out: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from tree.tiny_trees import bushy_batch

    from swe_srl.training.logprobs import SequenceEngine
    from swe_srl.training.sharding import shard
    from swe_srl.training.tree.engine import TreeEngine

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    batch = bushy_batch()[:22]
    random.Random(1).shuffle(batch)
    results = {}
    for number, (kind, options, cut) in enumerate(CASES):
        engine = {"tree": TreeEngine, "separate": SequenceEngine}[kind](150)
        start, end = PARTS[cut][rank : rank + 2]
        sharded = shard(model_of(**options), mesh)
        half = "half" in options
        found, result = gradients(sharded, engine, batch[start:end], 2 * (end - start) / 22, half)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            without = engine.logprobs(sharded, batch[start:end])
        if rank == 0:
            expected, _ = gradients(model_of(**options), engine, batch, 1.0, half)
            alone = SequenceEngine(1).logprobs(model_of(**options), batch[start:end])
            found = {name.removeprefix("model."): grad for name, grad in found.items()}
            assert found.keys() == expected.keys()
            largest = max(grad.abs().max() for grad in expected.values())
            pairs = zip(result.logprobs, alone, strict=True)
            results[number] = {
                "gradient": max(((found[name] - grad).abs().max() / largest).item() for name, grad in expected.items()),
                "logprob": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
                "same without gradients": without == result.logprobs,
            }
    if rank == 0:
        torch.save(results, out)
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    folder = tmp_path_factory.mktemp("sharding")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    processes = [context.Process(target=worker, args=(rank, folder / "meeting", folder / "found")) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]
    return torch.load(folder / "found")


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: "-".join(map(str, CASES[number])))
def test_two_processes_compute_what_one_does(found: dict[int, dict[str, float]], number: int) -> None:
    gradient, logprob = (0.02, 0.1) if "half" in CASES[number][1] else (1e-5, 2e-6)
    assert found[number]["gradient"] < gradient
    assert found[number]["logprob"] < logprob
    assert found[number]["same without gradients"]
