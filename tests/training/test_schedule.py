import pytest

from swe_srl.training.schedule import learning_rate


def test_constant_without_warm_up_is_constant() -> None:
    assert [learning_rate(u, 4, peak=2.0, schedule="constant", warmup=0.0) for u in range(4)] == [2.0] * 4


def test_warm_up_then_constant() -> None:
    rates = [learning_rate(u, 10, peak=3.0, schedule="constant", warmup=0.3) for u in range(10)]
    assert rates == [1.0, 2.0, *[3.0] * 8]


def test_cosine_by_hand() -> None:
    # No warm-up, four updates: 0.5 * (1 + cos(0, pi/4, pi/2, 3 pi/4)).
    rates = [learning_rate(u, 4, peak=1.0, schedule="cosine", warmup=0.0) for u in range(4)]
    assert rates == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_no_update_is_wasted_at_zero() -> None:
    for warmup in (0.0, 0.3, 1.0):
        assert all(learning_rate(u, 7, peak=1.0, schedule="cosine", warmup=warmup) > 0 for u in range(7))
