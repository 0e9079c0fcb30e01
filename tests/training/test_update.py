"""The steps of one batch: equal to those made by hand, and none that is not finite."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from accelerate import Accelerator
from transformers import LlamaForCausalLM

from swe_srl.config import SftStage
from swe_srl.training.logprobs import Example, SequenceEngine
from swe_srl.training.objective import Objective
from swe_srl.training.sharding import PolicyWeights
from swe_srl.training.update import NotFiniteError, Updater

EXAMPLES = [Example([1, 2, 3], [4, 5]), Example([1, 2], [6, 7, 8])]


def updater(model: LlamaForCausalLM, max_grad_norm: float = 1e9) -> Updater:
    stage = SftStage(objective="sft", updates=1, lr=1.0, max_grad_norm=max_grad_norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=123.0)
    policy = PolicyWeights.of(model, None)
    return Updater(Accelerator(cpu=True), policy, Objective(stage, 8), SequenceEngine(1000), optimizer)


@pytest.mark.parametrize("max_grad_norm", [1e9, 0.01])
def test_a_step_goes_down_the_clipped_gradient_of_the_mean_loss(model: LlamaForCausalLM, max_grad_norm: float) -> None:
    by_hand = copy.deepcopy(model)
    losses = []
    for example in EXAMPLES:
        ids = torch.tensor([[*example.prompt_ids, *example.answer_ids]])
        answer = by_hand(ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
        losses.append(-answer.gather(1, torch.tensor(example.answer_ids)[:, None]).mean())
    torch.stack(losses).mean().backward()
    gradients = {name: p.grad for name, p in by_hand.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
    scale = min(1.0, max_grad_norm / norm)

    metrics = updater(model, max_grad_norm).update(EXAMPLES, lr=0.5)
    assert metrics["loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for (name, now), before in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        moved = 0.5 * scale * gradients[name] if name in gradients else torch.zeros_like(now)
        torch.testing.assert_close(now, before - moved, rtol=0, atol=1e-6)


def test_weights_are_kept_where_a_gradient_is_not_finite(model: LlamaForCausalLM) -> None:
    with torch.no_grad():
        model.lm_head.weight[7] = math.inf
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NotFiniteError, match="gradient norm nan"):
        updater(model).update(EXAMPLES, lr=0.5)
    for name, weights in model.state_dict().items():
        assert torch.equal(weights, before[name]), name
