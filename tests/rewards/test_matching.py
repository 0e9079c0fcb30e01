from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards.matching import best_pairs


def best_by_trying(table: list[list[float]]) -> float:
    rows, columns = len(table), len(table[0]) if table else 0
    if rows > columns:
        return best_by_trying([list(column) for column in zip(*table, strict=True)])
    return max(sum(table[i][j] for i, j in enumerate(order)) for order in permutations(range(columns), rows))


values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0]) | st.floats(0, 1)
tables = st.integers(1, 5).flatmap(
    lambda columns: st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=1, max_size=5)
)


@given(tables)
def test_no_other_matching_is_worth_more(table: list[list[float]]) -> None:
    pairs = best_pairs(range(len(table)), range(len(table[0])), lambda i, j: table[i][j])
    assert sum(value for _, _, value in pairs) == pytest.approx(best_by_trying(table))
    assert all(value == table[i][j] for i, j, value in pairs)
    assert len({i for i, _, _ in pairs}) == len({j for _, j, _ in pairs}) == min(len(table), len(table[0]))


def test_the_greedy_choice_is_not_the_best() -> None:
    table = [[0.9, 0.8], [0.8, 0.1]]
    assert best_pairs([0, 1], [0, 1], lambda i, j: table[i][j]) == [(0, 1, 0.8), (1, 0, 0.8)]


def test_nothing_to_match() -> None:
    assert best_pairs([], [1], lambda a, b: 1.0) == best_pairs([1], [], lambda a, b: 1.0) == []
