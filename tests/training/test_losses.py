import math

import pytest
import torch

from swe_srl.training.losses import grpo_loss, sft_loss


def test_sft_is_a_mean_over_each_targets_tokens() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -100.0, -100.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert sft_loss(logprobs, mask).tolist() == [2.0, 4.0]


def test_grpo_clips_by_hand() -> None:
    # One token a row. min(ratio * A, clip(ratio, 0.8, 1.3) * A), negated.
    ratios = [1.0, 2.0, 0.5, 2.0, 0.5]
    advantages = [3.0, 1.0, 1.0, -1.0, -1.0]
    expected = [-3.0, -1.3, -0.5, 2.0, 0.8]
    logprobs = torch.tensor(ratios).log().unsqueeze(1)
    mask = torch.ones(5, 1, dtype=torch.bool)
    loss = grpo_loss(logprobs, torch.zeros(5, 1), mask, torch.tensor(advantages), clip_low=0.2, clip_high=0.3)
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


def test_grpo_gradient_by_hand() -> None:
    # d loss / d logp = -A * ratio / tokens where the ratio is not clipped away, else 0; padding gets none.
    logprobs = torch.tensor([[math.log(0.9), math.log(1.5), 0.0], [math.log(1.1), 5.0, 5.0]], requires_grad=True)
    old = torch.zeros(2, 3)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    grpo_loss(logprobs, old, mask, torch.tensor([2.0, -3.0]), clip_low=0.2, clip_high=0.2).sum().backward()
    assert logprobs.grad is not None
    expected = torch.tensor([[-2.0 * 0.9 / 3, 0.0, -2.0 / 3], [3.0 * 1.1, 0.0, 0.0]])
    torch.testing.assert_close(logprobs.grad, expected)


def test_on_the_old_policy_the_gradient_is_the_plain_policy_gradient_through_a_softmax() -> None:
    # Two actions, logits (0, ln 3): p = (1/4, 3/4). Sample = action 0, A = 2: d(-A * logp_0)/d logits = -2 * (1 - 1/4, -3/4).
    logits = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    logprobs = torch.log_softmax(logits, -1)[:, :1]
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = grpo_loss(logprobs, logprobs.detach(), mask, torch.tensor([2.0]), clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert loss.item() == -2.0
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.5, 1.5]]))


def test_nothing_at_padding_reaches_loss_or_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -math.inf]], requires_grad=True)
    sft_loss(logprobs, torch.tensor([[True, False]])).sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.0, 0.0]]
