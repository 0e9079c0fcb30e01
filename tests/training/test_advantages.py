import pytest

from swe_srl.training.advantages import group_advantages


def test_advantages_by_hand() -> None:
    # mean 0.5, deviations -0.5, -0.5, 0, 1; population variance (0.25 + 0.25 + 0 + 1) / 4 = 0.375
    rewards = [0.0, 0.0, 0.5, 1.5]
    std = 0.375**0.5
    assert group_advantages(rewards) == pytest.approx([-0.5 / std, -0.5 / std, 0.0, 1.0 / std], abs=1e-12)
    assert group_advantages(rewards, std_normalisation=False) == [-0.5, -0.5, 0.0, 1.0]


def test_two_samples_get_plus_and_minus_one_whatever_their_distance() -> None:
    assert group_advantages([0.25, 0.75]) == [-1.0, 1.0]
    assert group_advantages([-1.0, 0.0]) == [-1.0, 1.0]


def test_equal_rewards_teach_nothing_even_with_rounding() -> None:
    assert group_advantages([0.3, 0.3, 0.3]) == [0.0, 0.0, 0.0]
    assert group_advantages([0.1 + 0.2, 0.3]) == [0.0, 0.0]
