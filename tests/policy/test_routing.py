"""Prompts are dealt out to engines evenly, and to where their prefix is."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.policy.samplers.routing import BLOCK, blocks, families, route

ANSWERS = 64


def trajectory(seed: int, steps: int, first: int = 320, each: int = 96) -> list[list[int]]:
    """The prompts of a trajectory's steps: each goes on from the one before."""
    chance = random.Random(seed)
    ids = [chance.randrange(1000) for _ in range(first + steps * each)]
    return [ids[: first + step * each] for step in range(steps)]


calls = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(1, 200)), min_size=1, max_size=8).map(
    lambda parts: [prompt for seed, steps, first in parts for prompt in trajectory(seed, steps, first, 40)]
)


@given(calls, st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_prompt_goes_to_one_engine(prompts: list[list[int]], engines: int, chance: random.Random) -> None:
    chance.shuffle(prompts)
    pieces = families(prompts, ANSWERS, engines)
    assert sorted(index for piece in pieces for index in piece) == list(range(len(prompts)))
    routing = route(prompts, pieces, ANSWERS, [frozenset()] * engines)
    assert sorted(number for share in routing.shares for number in share) == list(range(len(pieces)))
    assert route(prompts, pieces, ANSWERS, [frozenset()] * engines) == routing


@given(calls, st.integers(1, 5), st.booleans())
def test_no_engine_has_more_than_another_by_more_than_a_piece(prompts: list[list[int]], engines: int, again: bool) -> None:
    pieces = families(prompts, ANSWERS, engines)
    held = route(prompts, pieces, ANSWERS, [frozenset()] * engines).held if again else [frozenset()] * engines
    alone = [route(prompts, [piece], ANSWERS, [frozenset()]).tokens[0] for piece in pieces]
    tokens = route(prompts, pieces, ANSWERS, held).tokens
    assert max(tokens) - min(tokens) <= max(alone)
    part = -(-route(prompts, families(prompts, ANSWERS, 1), ANSWERS, [frozenset()]).tokens[0] // engines)
    assert max(alone) <= part + max(map(len, prompts)) + ANSWERS


@given(calls, st.integers(1, 5))
def test_tokens_add_up(prompts: list[list[int]], engines: int) -> None:
    routing = route(prompts, families(prompts, ANSWERS, engines), ANSWERS, [frozenset()] * engines)
    assert sum(routing.tokens) + routing.found == sum(len(prompt) + ANSWERS for prompt in prompts)
    assert 0 <= routing.found < sum(map(len, prompts))


def test_trajectories_stay_whole_where_there_are_as_many_as_engines() -> None:
    prompts = trajectory(1, 4) + trajectory(2, 4)
    mixed = prompts[::2] + prompts[1::2]
    pieces = families(mixed, ANSWERS, 2)
    routing = route(mixed, pieces, ANSWERS, [frozenset()] * 2)
    went = [{mixed[index][0] for piece in share for index in pieces[piece]} for share in routing.shares]
    assert sorted(went, key=min) == sorted([{prompts[0][0]}, {prompts[4][0]}], key=min)
    # Of 320, 416, 512 and 608 tokens all but the first 320 and 3 x 96 more are a repetition, in both trajectories.
    assert routing.tokens == [608 + 4 * ANSWERS] * 2
    assert routing.found == 2 * (320 + 416 + 512)


def test_one_trajectory_is_cut_between_steps() -> None:
    prompts = trajectory(1, 8, first=64, each=16)
    pieces = families(prompts, ANSWERS, 2)
    assert pieces == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert route(prompts, pieces, ANSWERS, [frozenset()] * 2).tokens == [176 + 256, 112 + 256]


def test_what_all_share_does_not_keep_trajectories_together() -> None:
    system = list(range(2000, 2160))
    prompts = [system + prompt for seed in range(4) for prompt in trajectory(seed, 2, first=240, each=16)]
    assert sorted(map(sorted, families(prompts, ANSWERS, 1))) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_the_next_turn_goes_to_the_engine_that_has_the_last() -> None:
    turns = [trajectory(seed, 3) for seed in range(4)]
    held: list[frozenset[int]] = [frozenset()] * 2
    where: list[dict[int, int]] = []
    for turn in range(3):
        order = random.Random(turn).sample(range(4), 4)
        prompts = [turns[rollout][turn] for rollout in order]
        pieces = families(prompts, ANSWERS, 2)
        routing = route(prompts, pieces, ANSWERS, held)
        held = list(routing.held)
        where.append(
            {order[i]: engine for engine, share in enumerate(routing.shares) for piece in share for i in pieces[piece]}
        )
        assert routing.found == (0 if turn == 0 else 4 * (320 + (turn - 1) * 96))
    assert where[0] == where[1] == where[2]
    assert sorted(where[0].values()) == [0, 0, 1, 1]


def test_an_engine_that_is_far_behind_does_not_get_what_it_holds() -> None:
    prompts = trajectory(1, 1) + [trajectory(seed, 1, first=320)[0] for seed in range(2, 7)]
    pieces = [[index] for index in range(6)]
    everything = frozenset(block for prompt in prompts for block in blocks(prompt))
    routing = route(prompts, pieces, 4096, [everything, frozenset()])
    assert [len(share) for share in routing.shares] == [3, 3]


@pytest.mark.parametrize("length", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 3])
def test_blocks_say_what_came_before_them(length: int) -> None:
    ids = list(range(length))
    assert len(blocks(ids)) == length // BLOCK
    assert blocks([*ids, 7])[: length // BLOCK] == blocks(ids)
    if length >= BLOCK:
        assert not set(blocks([99, *ids[1:]])) & set(blocks(ids))


def test_blocks_are_the_same_in_every_process() -> None:
    program = "from swe_srl.policy.samplers.routing import blocks; print(blocks(list(range(40))))"
    said = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout] * 2
    assert said == [f"{blocks(list(range(40)))}\n"] * 2
