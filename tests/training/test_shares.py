"""Work is shared out evenly, and what is shared stays together unless splitting it pays."""

import itertools
from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from swe_srl.training.shares import FEW, PRECISION, Piece, Plan, cost, share_out, tree_pieces
from swe_srl.training.tree.planning import plan_tree

ALONE = st.integers(1, 60).map(Piece)


@st.composite
def batches(draw: st.DrawFn, largest: int = 7, smallest: int = 1) -> list[Piece]:
    """Pieces of their own, on one of two trunks, or on a trunk below the first."""
    sizes = [draw(st.integers(0, 80)) for _ in range(3)]
    pieces = []
    for _ in range(draw(st.integers(smallest, largest))):
        tokens, at = draw(st.integers(1, 60)), draw(st.integers(0, 3))
        read = draw(st.integers(0, sizes[at - 1])) if at else 0
        path = ((), ((1, read),), ((2, read),), ((1, sizes[0]), (3, read)))[at]
        pieces.append(Piece(tokens, path))
    return pieces


def every_plan(count: int, processes: int) -> Iterator[tuple[int, ...]]:
    return itertools.product(range(processes), repeat=count)


def plan_of(owners: Sequence[int], processes: int) -> Plan:
    return [[index for index, owner in enumerate(owners) if owner == process] for process in range(processes)]


def trunks_of(pieces: Sequence[Piece], share: Sequence[int]) -> set[int]:
    return {trunk for index in share for trunk, _ in pieces[index].path}


@given(batches(largest=40), st.integers(1, 5))
def test_every_piece_goes_to_exactly_one_process_and_always_to_the_same(pieces: list[Piece], processes: int) -> None:
    plan = share_out(pieces, processes)
    assert len(plan) == processes
    assert sorted(itertools.chain(*plan)) == list(range(len(pieces)))
    assert plan == share_out(list(pieces), processes)


@settings(max_examples=150)
@given(batches(largest=6), st.integers(2, 3))
def test_no_plan_is_better_where_all_can_be_tried(pieces: list[Piece], processes: int) -> None:
    best = min(cost(pieces, plan_of(owners, processes)) for owners in every_plan(len(pieces), processes))
    busiest, whole = cost(pieces, share_out(pieces, processes))
    assert busiest <= 1.1 * best[0]
    assert (busiest, whole) == best


@settings(max_examples=10)
@given(batches(largest=FEW + 1, smallest=FEW + 1))
def test_more_pieces_than_are_searched_through_are_within_a_tenth_of_the_best(pieces: list[Piece]) -> None:
    first_to_the_first = ((0, *owners) for owners in every_plan(len(pieces) - 1, 2))
    best = min(cost(pieces, plan_of(owners, 2))[0] for owners in first_to_the_first)
    assert cost(pieces, share_out(pieces, 2))[0] <= 1.1 * best


@given(st.lists(ALONE, min_size=1, max_size=80), st.integers(2, 8))
def test_the_busiest_process_is_never_further_from_the_mean_than_one_piece(pieces: list[Piece], processes: int) -> None:
    sizes = [piece.tokens for piece in pieces]
    busiest, _ = cost(pieces, share_out(pieces, processes))
    low = max(max(sizes), sum(sizes) / processes)
    assert busiest <= (1 + PRECISION) * max(low, sum(sizes) / processes + max(sizes)) + 1


@given(batches(largest=30), st.integers(2, 4))
def test_a_trunk_is_split_only_where_the_busiest_process_has_less_to_do_for_it(pieces: list[Piece], processes: int) -> None:
    plan = share_out(pieces, processes)
    busiest, whole = cost(pieces, plan)
    for trunk in {1, 2, 3}:
        holders = [share for share in plan if trunk in trunks_of(pieces, share)]
        if len(holders) < 2:
            continue
        moved = {index for share in holders for index in share if trunk in trunks_of(pieces, [index])}
        for at in range(processes):
            together = [sorted({*share} - moved | (moved if process == at else set())) for process, share in enumerate(plan)]
            assert (busiest, whole) <= cost(pieces, together)


def test_a_trajectory_alone_is_split_and_two_are_not() -> None:
    """27 steps of 8 samples on a trunk of 4,096: two halves repeat the trunk, and still take 58% of the time."""
    trajectory = [Piece(100, ((1, 4096),)) for _ in range(216)]
    assert cost(trajectory, share_out(trajectory, 2)) == (4096 + 108 * 100, 2 * 4096 + 216 * 100)
    two = [*trajectory, *(Piece(100, ((2, 4096),)) for _ in range(216))]
    assert share_out(two, 2) == [list(range(216)), list(range(216, 432))]


def test_splitting_that_costs_more_leaves_a_process_with_nothing() -> None:
    assert share_out([Piece(10, ((1, 1000),)), Piece(10, ((1, 1000),))], 3) == [[0], [1], []]
    assert cost([Piece(0, ((1, 1000),))] * 2, share_out([Piece(0, ((1, 1000),))] * 2, 2)) == (1000, 1000)


def test_one_answer_longer_than_the_mean_is_the_best_there_is() -> None:
    pieces = [Piece(90), *[Piece(5)] * 6]
    assert cost(pieces, share_out(pieces, 4)) == (90, 120)


@given(
    st.lists(st.tuples(st.lists(st.sampled_from([*"ab" * 40, "c"]), max_size=6), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(1, 3),
)
def test_the_pieces_of_a_tree_come_to_the_tokens_of_the_tree(ends: list[tuple[list[str], int]], trunks: int) -> None:
    prompts = [[at % trunks, *range(100, 200), *map(ord, end)] for at, (end, _) in enumerate(ends)]
    answers = [[7] * length for _, length in ends]
    root = plan_tree(prompts, answers)
    tokens = sum(len(trunk.ids) + sum(len(branch.ids) for branch in trunk.branches) for trunk in root.walk())
    pieces = tree_pieces(root)
    assert cost(pieces, [list(range(len(pieces)))])[0] == tokens
