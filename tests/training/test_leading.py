"""What the first of two processes does alone while both sample, in two processes of their own."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from killing import SLOW_TO_IMPORT

from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.training.interrupt import StopRequested
from swe_srl.training.leading import Leader, LedBatches
from swe_srl.training.processes import ALONE, Processes

ASKED = SamplingOptions(n=1, max_tokens=3)


@dataclass
class Recorded:
    """A sampler that keeps what it was asked, and answers with the prompt; it refuses an empty one."""

    calls: list[Any] = field(default_factory=list)

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        self.calls.append((prompts, options))
        if [] in prompts:
            raise UserError("a prompt is empty")
        return [[Sample(tuple(prompt), (0.0,) * len(prompt), "", "stop")] for prompt in prompts]


@dataclass
class Counted:
    """Batches whose contents are what a sampler makes of their number."""

    leader: Leader
    position: int = 0

    def __next__(self) -> Any:
        self.position += 1
        for _ in range(self.position):
            [[sample]] = self.leader.sample([[self.position]], ASKED)
        return sample.token_ids

    def state(self) -> dict[str, int]:
        return {"position": self.position}

    def restore(self, state: Any) -> None:
        self.position = state["position"]


def both(rank: int, meeting: Path, found: Any) -> None:
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        found[rank] = led(Processes.of(rank, 2, 60.0))
    except BaseException:
        found[rank] = traceback.format_exc()
        raise


def led(processes: Processes) -> dict[str, Any]:
    sampler = Recorded()
    leader = Leader(sampler, processes)
    made = []

    def make() -> list[int]:
        made.append(processes.rank)
        return [leader.sample([[number]], ASKED)[0][0].token_ids[0] for number in (7, 8, 9)]

    found: dict[str, Any] = {"result": leader.lead("numbers", make), "made by": made, "asked": list(sampler.calls)}
    sampler.calls.clear()

    def survive() -> str:
        with pytest.raises(UserError):
            leader.sample([[]], ASKED)
        return "went on"

    found["refused"] = leader.lead("what goes on", survive)

    def fail() -> None:
        leader.sample([[]], ASKED)

    def stop() -> None:
        leader.sample([[1]], ASKED)
        raise StopRequested(signal.SIGTERM)

    for name, call in (("error", fail), ("signal", stop)):
        with pytest.raises((UserError, StopRequested)) as raised:
            leader.lead(name, call)
        found[name] = raised.value.args
    batches = LedBatches(Counted(leader) if processes.first else None, leader)
    batches.restore({"position": 2})
    found["batches"] = [next(batches), next(batches)]
    found["state"] = batches.state()
    return found


def test_both_sample_and_the_first_alone_makes_something_of_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    with context.Manager() as manager:
        found = manager.dict()
        workers = [context.Process(target=both, args=(rank, tmp_path / "meeting", found)) for rank in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(90)
        assert [worker.exitcode for worker in workers] == [0, 0], dict(found)
        first, second = found[0], found[1]
    assert (first.pop("made by"), second.pop("made by")) == ([0], [])
    assert first["asked"] == [([[number]], ASKED) for number in (7, 8, 9)]
    assert (first.pop("state"), second.pop("state")) == ({"position": 4}, {})
    assert first == second
    assert first["result"] == [7, 8, 9]
    assert first["refused"] == "went on", "what sampling raises is the first process's to deal with"
    assert first["error"] == ("a prompt is empty",)
    assert first["signal"] == (signal.SIGTERM,)
    assert first["batches"] == [(3,), (4,)]


def test_one_process_leads_nobody() -> None:
    sampler = Recorded()
    leader = Leader(sampler, ALONE)
    assert leader.lead("a number", lambda: leader.sample([[5]], ASKED)[0][0].token_ids) == (5,)
    assert sampler.calls == [([[5]], ASKED)]
