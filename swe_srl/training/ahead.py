"""Batches as the loop takes them: in step with the updates, or each drawn while the one before it is trained on.

Invariant: a batch is drawn with one version of the weights, and says in its metrics how many updates old they were. Which
version that is depends on the recipe alone, never on what was faster: drawn ahead, a batch begins when the update before it
does, with the weights from before that update. What a checkpoint keeps of a batch drawn ahead is the batch itself.
"""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from swe_srl.policy.base import Sampler
from swe_srl.training.batches import Batch, Batches
from swe_srl.training.logprobs import Example, Part


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch, and after how many updates of the run it was begun."""

    batch: Batch
    updates: int


class Ahead:
    """A stage's batches. Drawn ahead, the sampler is the drawing thread's from `take` to `settle`."""

    def __init__(self, batches: Batches, sampler: Sampler, updates: Callable[[], int], staleness: int) -> None:
        """`updates`: the updates of the run so far; `staleness`: 1 to draw ahead."""
        self._batches, self._sampler, self._updates, self._staleness = batches, sampler, updates, staleness
        self._drawing: Future[Drawn] | None = None
        self._before: Mapping[str, int] = batches.state()
        """Where the batches were when the one being drawn was begun."""
        self._thread = ThreadPoolExecutor(1, "draws-ahead")

    def take(self, *, more: bool) -> Batch:
        """The next update's batch. `more`: whether there will be another update, whose batch may be begun."""
        started = time.perf_counter()
        drawn = self._draw() if self._drawing is None else self._drawing.result()
        self._drawing = None
        metrics, seconds = drawn.batch.metrics, drawn.batch.seconds
        if self._staleness:
            metrics = {**metrics, "staleness": self._updates() - drawn.updates}
            seconds = {**seconds, "wait": time.perf_counter() - started}
            if more:
                # Before the update changes them.
                self._sampler.take_weights()
                self._before = self._batches.state()
                self._drawing = self._thread.submit(self._draw)
        return replace(drawn.batch, metrics=metrics, seconds=seconds)

    def settle(self) -> None:
        """Return when nothing is being drawn; what went wrong is raised by the next `take`."""
        if self._drawing is not None:
            wait([self._drawing])

    def ahead(self) -> Drawn | None:
        """The batch that the next `take` gives, where it is drawn already. To be asked when settled."""
        return self._drawing.result() if self._drawing is not None and self._drawing.exception() is None else None

    def state(self) -> dict[str, int]:
        """All that the next batches depend on besides the policy and `ahead`. To be asked when settled."""
        lost = self._drawing is not None and self._drawing.exception() is not None
        return dict(self._before) if lost else self._batches.state()

    def restore(self, state: Mapping[str, int], ahead: Drawn | None) -> None:
        """Go to where another source of the same recipe was."""
        self._batches.restore(state)
        if ahead is not None:
            self._drawing = Future()
            self._drawing.set_result(ahead)

    def _draw(self) -> Drawn:
        updates = self._updates()
        self._sampler.report()  # what evaluations took
        batch = next(self._batches)
        return Drawn(replace(batch, metrics={**batch.metrics, **self._sampler.report()}), updates)


def write_drawn(path: Path, drawn: Drawn) -> None:
    """Write a batch so that `read_drawn` gives an equal one, to the bit."""
    batch = drawn.batch
    examples = [
        {
            "prompt_ids": list(example.prompt_ids),
            "answer_ids": list(example.answer_ids),
            "advantage": example.advantage,
            "sampler_logprobs": None if example.sampler_logprobs is None else list(example.sampler_logprobs),
            "part": None if example.part is None else asdict(example.part),
        }
        for example in batch.examples
    ]
    said = {"metrics": batch.metrics, "records": batch.records, "seconds": batch.seconds}
    path.write_text(json.dumps({"updates": drawn.updates, "examples": examples, **said}), encoding="utf-8")


def read_drawn(path: Path) -> Drawn | None:
    """What `write_drawn` wrote; None where it wrote nothing."""
    if not path.exists():
        return None
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    examples = [
        Example(
            array("i", example["prompt_ids"]),
            array("i", example["answer_ids"]),
            example["advantage"],
            sampler_logprobs=example["sampler_logprobs"] and array("d", example["sampler_logprobs"]),
            part=example["part"] and Part(**example["part"]),
        )
        for example in read["examples"]
    ]
    return Drawn(Batch(examples, read["metrics"], read["records"], read["seconds"]), read["updates"])
