"""Rollouts that go in step, so that what is sampled does not depend on timing.

Invariant: a round is sampled when every rollout that still acts waits for an answer, in the order of their names, with a seed
of its own. The same policy, starts and seed, shown the same observations, give the same rollouts, wherever they are made; one
that is begun again, its sandbox or its machine lost, is told again what it was told. Prompts are encoded and sampled in the
thread that calls `serve`, and nowhere else.

The price: everyone waits for the slowest command of a round. `swe_srl.rollouts.batching` does not wait, and repeats nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from swe_srl.cluster import base
from swe_srl.cluster.local import threads
from swe_srl.environments.working import needs_of
from swe_srl.policy.base import CanSample, SamplingOptions
from swe_srl.policy.prompts import PromptOptions, PromptTooLongError, encode_step
from swe_srl.rollouts.agent import ContextFull, Reply
from swe_srl.rollouts.rounds import Asked, Meeting, Rounds, Tools
from swe_srl.rollouts.run import Job, RolloutWork, pieces_of
from swe_srl.trajectories.model import Sampled, Step, Trajectory

Made = tuple[Trajectory, str | None]
"""A rollout, and what failed, if anything."""
_PACE_SECONDS = 0.1


@dataclass(slots=True)
class Lockstep:
    """One sampler for rollouts that go in step. Of its options `n` is ignored and the seed is each round's own."""

    sampler: CanSample
    tokenizer: Any
    prompt: PromptOptions
    sampling: SamplingOptions
    seed: str
    """Of all rounds together; equal seeds draw equal numbers."""
    meeting: Meeting = field(default_factory=Rounds)
    say: Callable[[str], None] = lambda text: None
    rounds: int = 0
    _told: dict[tuple[str, int], Reply] = field(default_factory=dict)
    """The answers of the rollouts of now, by name and turn."""

    def begin(self, names: Iterable[str]) -> None:
        """These rollouts are next."""
        self._told.clear()
        self.meeting.begin(names)

    def serve(self, ended: Callable[[], bool], between: Callable[[], None] = lambda: None) -> None:
        """Answer round by round until all have ended. `between` is called after each round, and may raise to end it."""
        while not ended():
            asked, without = self.meeting.gather(_PACE_SECONDS)
            if without:
                self.say(f"answers are given without waiting for {', '.join(without)}: nothing was heard of them for long")
            if asked and self._answer(asked):
                between()

    def _answer(self, asked: Sequence[Asked]) -> bool:
        """Whether it was a round: those who ask again are told again first, and the others wait for them to catch up."""
        prompts: dict[int, list[int]] = {}
        answers: dict[int, Reply | Exception] = {}
        for each in asked:
            try:
                prompts[each.ticket] = encode_step(each.step, each.tools, self.prompt, self.tokenizer)
            except PromptTooLongError as error:
                answers[each.ticket] = ContextFull(str(error))
        again = {each.ticket: told for each in asked if (told := self._told_before(each, prompts.get(each.ticket)))}
        if again:
            self.meeting.answer(again)
            return False
        seed = random.Random(f"{self.seed}/{self.rounds}").getrandbits(31)
        self.rounds += 1
        options = replace(self.sampling, n=1, seed=seed)
        groups = self.sampler.sample(list(prompts.values()), options) if prompts else []
        drawn = dict(zip(prompts, groups, strict=True))
        for each in asked:
            if each.ticket in drawn:
                [sample], prompt = drawn[each.ticket], tuple(prompts[each.ticket])
                sampled = Sampled(len(prompt), len(sample.token_ids), prompt, sample.token_ids, sample.logprobs)
                answers[each.ticket] = self._told[each.place] = Reply(sample.text, sample.finish, sampled)
        self.meeting.answer(answers)
        return True

    def _told_before(self, asked: Asked, prompt: Sequence[int] | None) -> Reply | None:
        told = self._told.get(asked.place)
        same = told is not None and prompt is not None and told.sampled.prompt_ids == tuple(prompt)
        return told if same else None


@dataclass(slots=True)
class Seat:
    """A rollout's place among those that go in step: a `Policy`."""

    meeting: Meeting
    name: str
    """Of the model."""
    rollout: str = ""

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        return self.meeting.ask(self.rollout, step, tools)

    def close(self) -> None:
        """See `Policy.close`."""
        self.meeting.close()


@dataclass
class InStepWork(RolloutWork):
    """Makes a rollout in step with others, wherever they are. Its policy is a `Seat` of nobody's."""

    def __call__(self, job: Job, tick: Callable[[], None]) -> Made:
        """See `RolloutWork`."""
        assert isinstance(self.policy, Seat)
        seat = replace(self.policy, rollout=job.id)
        try:
            return self.make(job, seat, tick, lambda: seat.meeting.leave(job.id))
        finally:
            seat.meeting.leave(job.id)


def roll_out_in_step(
    cluster: base.Cluster,
    jobs: Sequence[Job],
    lockstep: Lockstep,
    work: InStepWork,
    between: Callable[[], None] = lambda: None,
) -> list[Made]:
    """Make rollouts, `work.options.workers` at a time; each with what failed, in the order of the jobs.

    The next ones begin when all of these have ended and are tested. `between` is called after each round, in this thread.
    """
    made: dict[str, Made] = {}
    workers = work.options.workers
    for first in range(0, len(jobs), workers):
        wave = jobs[first : first + workers]
        lockstep.begin(job.id for job in wave)
        with threads(1, work.abort) as pool:
            making = pool.submit(_make, cluster, wave, work, lockstep)
            try:
                lockstep.serve(making.done, between)
                made |= making.result()
            except BaseException:
                lockstep.meeting.close()
                raise
    return [made[job.id] for job in jobs]


def _make(cluster: base.Cluster, wave: Sequence[Job], work: InStepWork, lockstep: Lockstep) -> dict[str, Made]:
    made = {}
    needs = needs_of(work.options.limits)
    with closing(cluster.run(work, pieces_of(cluster, wave, needs, lockstep.say), needs)) as ends:
        for done in ends:
            job = done.job.payload
            made[job.id] = work.made(done)
            lockstep.meeting.leave(job.id)
    return made
