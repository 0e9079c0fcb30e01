from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.training.tree.planning import MAX_REMAINDER, Branch, Trunk, common_prefix, cut, plan_tree

A, B, C = range(1000, 2000), range(2000, 3000), range(3000, 4000)
"""Ids of three texts that share nothing."""


def shape(trunk: Trunk) -> object:
    """(start, own tokens, [(example, limit, prompt tokens, tokens)], children)"""
    branches = [(b.example, b.limit, b.unscored, len(b.ids)) for b in trunk.branches]
    return trunk.start, len(trunk.ids), branches, [shape(child) for child in trunk.children]


def plan(*prompts: Sequence[int]) -> object:
    return shape(plan_tree([list(p) for p in prompts], [[7, 8, 9]] * len(prompts)))


def test_the_steps_of_a_trajectory_share_the_longest_prompt() -> None:
    # All but the last token of the longest; the last one goes with each of its answers, to predict the answer's first.
    assert plan(A[:100], A[:200], A[:300], A[:300]) == (
        0,
        0,
        [],
        [(0, 299, [(0, 99, 1, 4), (1, 199, 1, 4), (2, 299, 1, 4), (3, 299, 1, 4)], [])],
    )


def test_a_short_remainder_goes_with_the_branch() -> None:
    prompt = [*A[:150], *B[:MAX_REMAINDER]]
    assert plan(A[:300], prompt) == (0, 0, [], [(0, 299, [(1, 150, 64, 67), (0, 299, 1, 4)], [])])


def test_a_longer_remainder_of_several_answers_is_a_trunk_on_the_trunk() -> None:
    prompt = [*A[:150], *B[: MAX_REMAINDER + 1]]
    assert plan(A[:300], prompt, prompt) == (
        0,
        0,
        [],
        [(0, 299, [(0, 299, 1, 4)], [(150, 64, [(1, 214, 1, 4), (2, 214, 1, 4)], [])])],
    )


def test_a_longer_remainder_of_one_answer_goes_with_the_branch() -> None:
    assert plan(A[:300], A[:300], [*A[:150], *B[:100]]) == (
        0,
        0,
        [],
        [(0, 299, [(2, 150, 100, 103), (0, 299, 1, 4), (1, 299, 1, 4)], [])],
    )


def test_trunks_that_share_little_stand_alone() -> None:
    other = [*A[:63], *B[:150]]
    assert plan(A[:300], A[:300], other, other) == (
        0,
        0,
        [],
        [(0, 299, [(0, 299, 1, 4), (1, 299, 1, 4)], []), (0, 212, [(2, 212, 1, 4), (3, 212, 1, 4)], [])],
    )


def test_three_levels() -> None:
    system = list(A[:100])
    issues = [[*system, *B[:200]], [*system, *C[:180]]]
    steps = [[*issue, *range(start, start + 70)] for issue in issues for start in (5000, 6000)]
    assert plan(*(step for step in steps for _ in range(2))) == (
        0,
        0,
        [],
        [
            (
                0,
                369,
                [(0, 369, 1, 4), (1, 369, 1, 4)],
                [
                    (300, 69, [(2, 369, 1, 4), (3, 369, 1, 4)], []),
                    (100, 249, [(4, 349, 1, 4), (5, 349, 1, 4)], [(280, 69, [(6, 349, 1, 4), (7, 349, 1, 4)], [])]),
                ],
            )
        ],
    )


def test_one_answer_needs_no_trunk() -> None:
    assert plan(A[:300]) == (0, 0, [(0, 0, 300, 303)], [])
    assert plan([5], [5]) == (0, 0, [(0, 0, 1, 4), (1, 0, 1, 4)], [])


texts = st.lists(st.integers(0, 1), min_size=1, max_size=40).map(lambda bits: [bit for bit in bits for _ in range(9)])
"""Over two ids in runs of nine, so that long common prefixes and forks everywhere are common."""


@given(st.lists(st.tuples(texts, st.lists(st.integers(2, 9), min_size=1, max_size=5)), min_size=1, max_size=14))
def test_every_path_is_its_example(examples: list[tuple[list[int], list[int]]]) -> None:
    root = plan_tree([prompt for prompt, _ in examples], [answer for _, answer in examples])
    assert (root.start, root.ids) == (0, ())
    seen = []

    def descend(trunk: Trunk, above: list[int]) -> None:
        assert trunk.start <= len(above)
        path = above[: trunk.start] + list(trunk.ids)
        assert len(path) == trunk.end
        assert [b.limit for b in trunk.branches] == sorted(b.limit for b in trunk.branches)
        for branch in trunk.branches:
            prompt, answer = examples[branch.example]
            assert branch.limit <= len(path)
            assert branch.unscored >= 1
            assert path[: branch.limit] + list(branch.ids[: branch.unscored]) == prompt
            assert list(branch.ids[branch.unscored :]) == answer
            seen.append(branch.example)
        for child in trunk.children:
            assert child.ids
            descend(child, path)

    descend(root, [])
    assert sorted(seen) == list(range(len(examples)))
    tokens = sum(len(t.ids) + sum(len(b.ids) for b in t.branches) for t in root.walk())
    assert tokens <= sum(len(prompt) + len(answer) for prompt, answer in examples)


@given(texts, texts)
def test_the_common_prefix_is_that_of_a_walk(a: list[int], b: list[int]) -> None:
    expected = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        expected += 1
    assert common_prefix(tuple(a), tuple(b)) == expected


@pytest.mark.parametrize(
    ("budget", "chunks"),
    [
        (100, [[3, 3, 5, 9]]),
        (35, [[3, 3, 5], [9]]),
        (15, [[3, 3, 5], [9]]),
        (14, [[3, 3], [5], [9]]),
        (1, [[3], [3], [5], [9]]),
    ],
)
def test_chunks_keep_to_their_padded_size(budget: int, chunks: list[list[int]]) -> None:
    branches = [Branch(0, 0, tuple(range(length)), 1) for length in (3, 3, 5, 9)]
    assert [[len(b.ids) for b in chunk] for chunk in cut(branches, budget)] == chunks
