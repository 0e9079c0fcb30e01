"""pass@k is what drawing k of n at random gives; hand values and brute force say so."""

from __future__ import annotations

from itertools import combinations
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rollouts.estimates import Estimate, bootstrap, pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(1, 0, 1, 0.0), (1, 1, 1, 1.0), (4, 1, 1, 0.25), (4, 1, 2, 0.5), (4, 2, 2, 5 / 6), (10, 3, 5, 11 / 12), (5, 3, 3, 1.0)],
)
def test_hand_values(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_it_is_the_share_of_all_draws_that_hold_a_right_one(case: tuple[int, int, int]) -> None:
    n, c, k = case
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert isclose(pass_at_k(n, c, k), sum(map(any, draws)) / len(draws), abs_tol=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_what_cannot_be_estimated(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} cannot be estimated from {c} right of {n}"):
        pass_at_k(n, c, k)


def test_an_interval_over_tasks_is_that_of_their_mean() -> None:
    # A mean of 4 values that are 0 or 1: its resamples are binomial, so that the quantiles are known.
    found = bootstrap([1.0, 0.0, 1.0, 0.0], [1, 1, 1, 1], seed=0)
    assert found == Estimate(0.5, 0.0, 1.0)
    assert bootstrap([], [], seed=0) is None
