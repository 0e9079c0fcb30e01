import math

import pytest
import torch

from swe_srl.training.mismatch import beyond, disagreement, mismatch_ratio, mismatch_weights

MASK = torch.tensor([[True, True, True], [True, True, False]])


def logs(*ratios: list[float]) -> torch.Tensor:
    return torch.tensor(ratios).log()


SAMPLER = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -0.5, 0.0]])
TRAINER = SAMPLER + logs([0.5, 1.0, 4.0], [3.0, 1.0, 7.0])
"""Ratios of trainer to sampler of 1/2, 1, 4 and 3, 1; what stands at padding must not count."""


def test_tokens_are_truncated_by_hand() -> None:
    ratio = mismatch_ratio(TRAINER, SAMPLER, MASK, "token")
    assert ratio[MASK].tolist() == pytest.approx([0.5, 1.0, 4.0, 3.0, 1.0])
    assert mismatch_weights(ratio, "token", 0.0, 2.0)[MASK].tolist() == pytest.approx([0.5, 1.0, 2.0, 2.0, 1.0])
    assert mismatch_weights(ratio, "token", 0.8, 2.0)[MASK].tolist() == pytest.approx([0.8, 1.0, 2.0, 2.0, 1.0])
    assert beyond(ratio, 0.8, 2.0)[MASK].tolist() == [True, False, True, True, False]


def test_sequences_outside_the_bounds_are_left_out_by_hand() -> None:
    # Products 1/2 * 1 * 4 = 2 and 3 * 1 = 3.
    ratio = mismatch_ratio(TRAINER, SAMPLER, MASK, "sequence")
    for low, high, first, second in ((0.0, 4.0, 2.0, 3.0), (0.0, 2.5, 2.0, 0.0), (2.5, 4.0, 0.0, 3.0)):
        weights = mismatch_weights(ratio, "sequence", low, high)
        assert weights[0].tolist() == pytest.approx([first] * 3)
        assert weights[1, :2].tolist() == pytest.approx([second] * 2)


@pytest.mark.parametrize("how", ["token", "sequence"])
def test_a_weight_has_no_gradient_and_is_one_where_both_agree(how: str) -> None:
    trainer = SAMPLER.clone().requires_grad_()
    weights = mismatch_weights(mismatch_ratio(trainer, SAMPLER, MASK, how), how, 0.0, 2.0)  # type: ignore[arg-type]
    assert weights[MASK].tolist() == [1.0] * 5
    assert not weights.requires_grad


def test_the_disagreement_by_hand() -> None:
    # r = trainer / sampler = e, 1/e and three times 1.
    trainer = SAMPLER + torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 50.0]])
    found = disagreement(trainer, SAMPLER, MASK)
    assert found.mean == pytest.approx(2 / 5)
    assert found.largest == 1.0
    assert found.kl == pytest.approx((math.e - 2 + 1 / math.e) / 5)


def test_policies_that_agree_are_no_distance_apart() -> None:
    found = disagreement(SAMPLER, SAMPLER, MASK)
    assert (found.mean, found.largest, found.kl) == (0.0, 0.0, 0.0)
