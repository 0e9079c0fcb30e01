"""Which of several engines samples which prompts.

Invariant: pure; every piece goes to exactly one engine, and equal calls are routed alike. An engine keeps the keys and values
of what it was sent, so the steps of a trajectory go where their prefix is, as long as that engine has room: a piece is given to
the engine that would be done with it first, and what it holds already costs it nothing. No engine has more than another by
more than one piece.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from swe_srl.policy.samplers.vllm_requests import trajectory_order

BLOCK = 16
"""Tokens that are found in an engine's cache together, as vLLM counts them."""

Prompts = Sequence[Sequence[int]]
Pieces = list[list[int]]
"""Indices of the prompts that one engine gets together."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Where the pieces of a call go."""

    shares: Sequence[Sequence[int]]
    """By engine, the numbers of its pieces, ascending."""
    tokens: Sequence[int]
    """By engine, what it is to compute: prompt tokens that it does not hold, and samples at their longest."""
    found: int
    """Prompt tokens that are not computed, because the engine holds them or another prompt of the call brings them."""
    held: Sequence[frozenset[int]]
    """By engine, what it holds afterwards; see `blocks`."""


def route(prompts: Prompts, pieces: Pieces, answer_tokens: int, held: Sequence[Collection[int]]) -> Routing:
    """Deal pieces out, the largest first, each to the engine that is done with it first; the first of equals.

    Args:
        answer_tokens: of all samples of a prompt, at their longest.
        held: by engine, the blocks of what it was sent since its weights were last changed.
    """
    chains = [blocks(prompt) for prompt in prompts]
    known = [set(of_engine) for of_engine in held]
    alone = [_cost(prompts, chains, piece, answer_tokens, set()) for piece in pieces]
    tokens = [0] * len(known)
    shares: list[list[int]] = [[] for _ in known]
    for number in sorted(range(len(pieces)), key=lambda number: (-alone[number], number)):
        costs = [_cost(prompts, chains, pieces[number], answer_tokens, of_engine) for of_engine in known]
        engine = min(range(len(known)), key=lambda e: (tokens[e] + costs[e], e))
        tokens[engine] += costs[engine]
        shares[engine].append(number)
        known[engine].update(block for index in pieces[number] for block in chains[index])
    asked = sum(len(prompts[index]) + answer_tokens for piece in pieces for index in piece)
    return Routing([sorted(share) for share in shares], tokens, asked - sum(tokens), [frozenset(own) for own in known])


def families(prompts: Prompts, answer_tokens: int, engines: int) -> Pieces:
    """Prompts by trajectory, in the order of their ids; a family of more than an engine's part of the call is cut.

    Two belong together where the second repeats at least half of the first: a system prompt that all share is no reason.
    """
    chains = [blocks(prompt) for prompt in prompts]
    order = trajectory_order(prompts)
    found: Pieces = [order[:1]] if order else []
    for before, index in pairwise(order):
        shared = BLOCK * _known(chains[index], frozenset(chains[before]))
        found[-1].append(index) if 2 * shared >= len(prompts[before]) else found.append([index])
    costs = [_cost(prompts, chains, family, answer_tokens, set()) for family in found]
    part = -(-sum(costs) // engines)
    cut: Pieces = []
    for family, cost in zip(found, costs, strict=True):
        # Each part computes the prefix again: as few parts as there would be if it did not, of the least size that allows.
        count, sizes = -(-cost // part), range(part, cost + 1)
        least = bisect_left(sizes, True, key=lambda most: len(_cut(prompts, chains, family, answer_tokens, most)) <= count)
        cut += [family] if count == 1 else _cut(prompts, chains, family, answer_tokens, sizes[least])
    return cut


def blocks(prompt: Sequence[int]) -> list[int]:
    """A number for each whole block of a prompt, which says what the prompt is up to the block's end."""
    chain, before = [], 0
    for end in range(BLOCK, len(prompt) + 1, BLOCK):
        before = hash((before, *prompt[end - BLOCK : end]))
        chain.append(before)
    return chain


def _cut(prompts: Prompts, chains: Sequence[list[int]], family: list[int], answer_tokens: int, most: int) -> Pieces:
    """Parts of a family, in order, of at most so many tokens where a prompt is no more than that."""
    parts: Pieces = [[]]
    known: set[int] = set()
    tokens = 0
    for index in family:
        own = _cost(prompts, chains, [index], answer_tokens, known)
        if parts[-1] and tokens + own > most:
            parts.append([])
            tokens, known = 0, set()
            own = _cost(prompts, chains, [index], answer_tokens, known)
        parts[-1].append(index)
        tokens += own
        known.update(chains[index])
    return parts


def _cost(
    prompts: Prompts, chains: Sequence[list[int]], piece: Sequence[int], answer_tokens: int, known: Collection[int]
) -> int:
    """Tokens to compute for a piece where some blocks are known."""
    own: set[int] = set()
    total = 0
    for index in piece:
        found = max(_known(chains[index], known), _known(chains[index], own))
        # The last token is always computed: its logits are what the samples begin with.
        total += max(1, len(prompts[index]) - BLOCK * found) + answer_tokens
        own.update(chains[index])
    return total


def _known(chain: Sequence[int], known: Collection[int]) -> int:
    """How many blocks from the beginning are known: where one is, so are those before it."""
    return bisect_left(chain, True, key=lambda block: block not in known)
