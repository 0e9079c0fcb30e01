"""Rollouts in step: who is sampled with whom, and with which numbers, does not depend on timing."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rollouts.agent import ContextFull, Reply
from swe_srl.rollouts.lockstep import Lockstep, Seat
from swe_srl.rollouts.rounds import Rounds
from swe_srl.trajectories.model import Sampled, Step, Trajectory, Turn

Asked = list[tuple[int, list[str]]]


class Characters:
    """A tokenizer with one token a character of the last message."""

    def apply_chat_template(self, messages: Sequence[dict[str, str]], **options: Any) -> list[int]:
        return [ord(character) for character in messages[-1]["content"]]


class Echo:
    """Keeps the seed and the prompts of each call, and says the prompt again."""

    def __init__(self) -> None:
        self.asked: Asked = []
        self.threads: set[int] = set()

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        self.threads.add(threading.get_ident())
        texts = ["".join(map(chr, prompt)) for prompt in prompts]
        self.asked.append((options.seed, texts))
        return [
            [Sample(tuple(prompt), (0.0,) * len(prompt), text, "stop")] for prompt, text in zip(prompts, texts, strict=True)
        ]

    def update_weights(self, checkpoint: Path | None) -> None: ...

    def close(self) -> None: ...


def step(text: str, turn: int = 1) -> Step:
    return Step(Trajectory("t", "t", "mini-swe-agent", "test", (Turn("user", text),)), turn - 1, turn)


def in_step(sampler: Echo, seed: str = "s", limit: int | None = None) -> Lockstep:
    options = PromptOptions(max_prompt_tokens=limit)
    return Lockstep(sampler, Characters(), options, SamplingOptions(n=9, temperature=0.5, max_tokens=7), seed)


def together(lockstep: Lockstep, rollouts: dict[str, Callable[[Seat], Any]]) -> list[Any]:
    """What each of these comes to, in threads of their own, while this one answers."""
    lockstep.begin(rollouts)

    def one(name: str) -> Any:
        try:
            return rollouts[name](Seat(lockstep.meeting, "m", name))
        finally:
            lockstep.meeting.leave(name)

    with ThreadPoolExecutor(len(rollouts)) as pool:
        made = [pool.submit(one, name) for name in rollouts]
        lockstep.serve(lambda: all(future.done() for future in made))
        return [future.result() for future in made]


def act(lockstep: Lockstep, lengths: dict[str, int], delays: random.Random) -> None:
    """Rollouts of so many answers each, that take their time."""

    def asking(seat: Seat) -> None:
        for turn in range(lengths[seat.rollout]):
            time.sleep(delays.random() / 200)
            assert seat.reply(step(f"{seat.rollout}{turn}", 1 + turn), []).text == f"{seat.rollout}{turn}"

    together(lockstep, dict.fromkeys(lengths, asking))


def test_a_round_is_everyone_who_acts_in_the_order_of_their_names() -> None:
    sampler = Echo()
    act(in_step(sampler), {"b": 1, "c": 3, "a": 2}, random.Random(0))
    assert [texts for _, texts in sampler.asked] == [["a0", "b0", "c0"], ["a1", "c1"], ["c2"]]
    assert sampler.threads == {threading.get_ident()}, "the sampler is called by the thread that serves"


def test_timing_changes_nothing_and_the_seed_everything() -> None:
    def rounds(seed: str, delays: int) -> Asked:
        sampler = Echo()
        act(in_step(sampler, seed), {"a": 4, "b": 2, "c": 3}, random.Random(delays))
        return sampler.asked

    assert rounds("s", 0) == rounds("s", 1) == rounds("s", 2)
    assert len({number for number, _ in rounds("s", 0)}) == 4, "each round has numbers of its own"
    assert [number for number, _ in rounds("t", 0)] != [number for number, _ in rounds("s", 0)]


def test_one_that_is_begun_again_is_told_the_same_and_the_others_wait_for_it() -> None:
    class Counted(Echo):
        """Says the number of the call."""

        def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
            super().sample(prompts, options)
            return [[Sample((1,), (0.0,), f"call {len(self.asked)}", "stop")] for _ in prompts]

    def again(seat: Seat) -> list[str]:
        told = [seat.reply(step(f"a{turn}", 1 + turn), []).text for turn in range(3)]
        assert [seat.reply(step(f"a{turn}", 1 + turn), []).text for turn in range(3)] == told
        return [*told, seat.reply(step("a3", 4), []).text]

    def straight_on(seat: Seat) -> list[str]:
        return [seat.reply(step(f"b{turn}", 1 + turn), []).text for turn in range(4)]

    def other(seat: Seat) -> list[str]:
        return [seat.reply(step("x" if turn == 1 else f"a{turn}", 1 + min(turn, 1)), []).text for turn in range(3)]

    sampler = Counted()
    assert together(in_step(sampler), {"a": again, "b": straight_on}) == [[f"call {n}" for n in (1, 2, 3, 4)]] * 2
    assert [texts for _, texts in sampler.asked] == [[f"a{turn}", f"b{turn}"] for turn in range(4)]
    assert together(in_step(Counted()), {"a": other}) == [["call 1", "call 2", "call 3"]], "shown other things it is asked anew"


def test_a_prompt_that_does_not_fit_ends_one_rollout_and_the_others_are_answered() -> None:
    def long(seat: Seat) -> None:
        with pytest.raises(ContextFull, match="more than max_prompt_tokens = 5"):
            seat.reply(step("too long for it"), [])

    lockstep = in_step(Echo(), limit=5)
    assert together(lockstep, {"long": long, "short": lambda seat: seat.reply(step("fits"), []).text}) == [None, "fits"]


def test_what_the_sampler_raises_ends_it_for_everyone() -> None:
    class Broken(Echo):
        def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
            raise RuntimeError("out of memory")

    lockstep = in_step(Broken())
    lockstep.begin("ab")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(Seat(lockstep.meeting, "m", name).reply, step(name), []) for name in "ab"]
        with pytest.raises(RuntimeError, match="out of memory"):
            lockstep.serve(lambda: False)
        lockstep.meeting.close()
        for future in waiting:
            with pytest.raises(CancelledError):
                future.result()
    with pytest.raises(CancelledError):
        lockstep.meeting.ask("a", step("a"), [])


def test_nobody_waits_for_ever_for_one_of_whom_nothing_is_heard() -> None:
    said: list[str] = []
    lockstep = dataclasses.replace(in_step(Echo()), meeting=Rounds(patience=0.2), say=said.append)
    lockstep.begin(["lost", "there"])
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(lockstep.meeting.ask, "there", step("x"), [])
        lockstep.serve(there.done)
        assert there.result().text == "x"
    assert time.monotonic() - begun > 0.2
    assert said == ["answers are given without waiting for lost: nothing was heard of them for long"]


def test_an_answer_is_for_the_one_who_asked_and_not_for_who_came_in_its_place() -> None:
    rounds, reply = Rounds(), Reply("late", "stop", Sampled(1, 1))
    rounds.begin(["a"])
    with ThreadPoolExecutor(2) as pool:
        lost = pool.submit(rounds.ask, "a", step("first"), [])
        [first], _ = rounds.gather(10)
        again = pool.submit(rounds.ask, "a", step("second"), [])
        with pytest.raises(CancelledError):
            lost.result()
        rounds.answer({first.ticket: reply})
        [second], without = rounds.gather(10)
        assert (second.step, without, again.done()) == (step("second"), [], False)
        rounds.answer({second.ticket: reply})
        assert again.result() is reply
    assert rounds.gather(0.01) == ([], []), "nobody waits"
