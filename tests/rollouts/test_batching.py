"""Whoever waits is sampled together; everyone gets an answer or an exception."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest

from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.rollouts.batching import Batcher


class Doubler:
    """Answers a prompt of one id with twice that id. Holds each call until it may go on."""

    def __init__(self, free: bool = True) -> None:
        self.calls: list[list[int]] = []
        self.seeds: list[int] = []
        self.called, self.go = threading.Event(), threading.Event()
        if free:
            self.go.set()

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        self.calls.append(sorted(prompt[0] for prompt in prompts))
        self.seeds.append(options.seed)
        self.called.set()
        assert self.go.wait(20)
        if any(prompt[0] < 0 for prompt in prompts):
            raise RuntimeError("no such id")
        return [[Sample((2 * prompt[0],), (0.0,), "", "stop")] for prompt in prompts]

    def update_weights(self, checkpoint: Path | None) -> None:
        raise AssertionError


def _ask_all(batcher: Batcher, ids: Sequence[int]) -> dict[int, int]:
    with ThreadPoolExecutor(len(ids)) as pool:
        return dict(zip(ids, pool.map(lambda i: batcher.sample([i]).token_ids[0], ids), strict=True))


def test_everyone_gets_the_answer_to_their_own_prompt() -> None:
    with Batcher(Doubler(), SamplingOptions()) as batcher:
        assert _ask_all(batcher, range(20)) == {i: 2 * i for i in range(20)}
        assert batcher.counts.prompts == 20


def test_those_who_wait_while_the_sampler_is_busy_are_sampled_together() -> None:
    sampler = Doubler(free=False)
    with Batcher(sampler, SamplingOptions(seed=5), linger=0.0) as batcher, ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.sample, [100])
        assert sampler.called.wait(20)
        others = [pool.submit(batcher.sample, [i]) for i in range(7)]
        while batcher._waiting.qsize() < 7:
            pass
        sampler.go.set()
        assert [future.result().token_ids[0] for future in [first, *others]] == [200, *range(0, 14, 2)]
    assert sampler.calls == [[100], list(range(7))]
    assert sampler.seeds == [5, 6], "each call draws other numbers"


def test_a_batch_is_no_larger_than_it_may_be() -> None:
    sampler = Doubler()
    with Batcher(sampler, SamplingOptions(), max_batch=3, linger=5.0) as batcher:
        _ask_all(batcher, range(9))
    assert [len(call) for call in sampler.calls] == [3, 3, 3]


def test_one_that_is_alone_waits_for_nobody() -> None:
    with Batcher(Doubler(), SamplingOptions(), linger=1.0) as batcher, ThreadPoolExecutor(1) as pool:
        # Only the first could have had company; waiting at each would take a minute.
        pool.submit(lambda: [batcher.sample([i]) for i in range(60)]).result(30)
    assert batcher.counts.calls == 60


def test_two_that_began_apart_are_sampled_together_from_then_on() -> None:
    class Slow(Doubler):
        def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
            time.sleep(0.5)
            return super().sample(prompts, options)

    sampler = Slow(free=False)
    with Batcher(sampler, SamplingOptions()) as batcher, ThreadPoolExecutor(2) as pool:

        def acts(first: int) -> None:
            for number in range(first, first + 5):
                batcher.sample([number])

        early = pool.submit(acts, 10)
        assert sampler.called.wait(20)
        late = pool.submit(acts, 20)
        while not batcher._waiting.qsize():
            pass
        sampler.go.set()
        early.result(30)
        late.result(30)
    assert sampler.calls == [[10], [11, 20], [12, 21], [13, 22], [14, 23], [24]]


def test_what_the_sampler_raises_reaches_those_in_the_batch_and_no_others() -> None:
    with Batcher(Doubler(), SamplingOptions(), linger=0.0) as batcher:
        with pytest.raises(RuntimeError, match="no such id"):
            batcher.sample([-1])
        assert batcher.sample([4]).token_ids == (8,)


def test_closing_turns_away_who_waits_and_who_comes_later() -> None:
    sampler = Doubler(free=False)
    batcher = Batcher(sampler, SamplingOptions())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(batcher.sample, [1])
        assert sampler.called.wait(20)
        batcher.close()
        with pytest.raises(CancelledError):
            waiting.result(20)
    sampler.go.set()
    with pytest.raises(CancelledError):
        batcher.sample([2])
    batcher.close()


def test_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="one sample at a time, not 4"):
        Batcher(Doubler(), SamplingOptions(n=4))
