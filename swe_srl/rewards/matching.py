"""Match things one to one so that the sum of their values is greatest (the assignment problem).

Invariant: exact; each row and each column is used at most once, and the smaller side is used up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def best_pairs(first: Sequence[A], second: Sequence[B], value: Callable[[A, B], float]) -> list[tuple[int, int, float]]:
    """Pairs (i, j, value) of first[i] and second[j] with the greatest sum, by i; min(len) of them.

    The Hungarian method with potentials (Kuhn 1955, Munkres 1957), O(n² m) for n ≤ m.
    """
    values = [[value(a, b) for b in second] for a in first]
    if len(first) <= len(second):
        return sorted((i, j, values[i][j]) for i, j in _assign([[-v for v in row] for row in values]))
    costs = [[-values[i][j] for i in range(len(first))] for j in range(len(second))]
    return sorted((i, j, values[i][j]) for j, i in _assign(costs))


def _assign(costs: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """(row, column) of the cheapest assignment of every row; there are at least as many columns as rows."""
    rows, columns = len(costs), len(costs[0]) if costs else 0
    row_potential, column_potential = [0.0] * (rows + 1), [0.0] * (columns + 1)
    row_of = [0] * (columns + 1)  # from 1; 0: free. Column 0 stands for the row that is being placed.
    for row in range(1, rows + 1):
        row_of[0], column = row, 0
        slack, came_from = [float("inf")] * (columns + 1), [0] * (columns + 1)
        done = [False] * (columns + 1)
        while row_of[column]:
            done[column] = True
            current, delta, following = row_of[column], float("inf"), 0
            for j in range(1, columns + 1):
                if done[j]:
                    continue
                reduced = costs[current - 1][j - 1] - row_potential[current] - column_potential[j]
                if reduced < slack[j]:
                    slack[j], came_from[j] = reduced, column
                if slack[j] < delta:
                    delta, following = slack[j], j
            for j in range(columns + 1):
                if done[j]:
                    row_potential[row_of[j]] += delta
                    column_potential[j] -= delta
                else:
                    slack[j] -= delta
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return [(row_of[j] - 1, j - 1) for j in range(1, columns + 1) if row_of[j]]
