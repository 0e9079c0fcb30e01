"""Many rollouts, one sampler: whatever is waiting when the sampler is free is sampled together.

Invariant: the sampler is called by one thread only. Every request gets its sample or an exception, also when it was waiting
while the batcher was closed. What a sampler raises reaches everyone who was in that batch.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, replace

from swe_srl.policy.base import Sample, Sampler, SamplingOptions

_MOST_SECONDS = 2.0
_Request = tuple[Sequence[int], "Future[Sample]"]


@dataclass(slots=True)
class BatchingCounts:
    """How the sampler was used."""

    calls: int = 0
    prompts: int = 0
    seconds: float = 0.0
    """Of the sampler at work."""


class Batcher:
    """Gathers requests of many threads. Use it as a context manager."""

    def __init__(
        self, sampler: Sampler, options: SamplingOptions, *, max_batch: int = 64, linger: float = 0.02, share: float = 0.2
    ) -> None:
        """
        Args:
            options: of every sample; `n` must be 1. Call c of the sampler gets the seed + c.
            max_batch: prompts sampled together at most.
            linger: seconds to wait for others once there is a request, while fewer wait than may come: those that the last call
                answered, and those that waited when it ended. Without that, two would take turns for ever.
            share: of what the last call took, which is waited where that is more than `linger`, two seconds at most.
        """
        if options.n != 1:
            raise ValueError(f"a rollout asks for one sample at a time, not {options.n}")
        self.counts = BatchingCounts()
        self._sampler, self._options, self._max_batch = sampler, options, max_batch
        self._linger, self._share = linger, share
        self._expected, self._patience = max_batch, linger
        self._waiting: queue.Queue[_Request] = queue.Queue()
        self._closed = threading.Event()
        self._open: set[Future[Sample]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="swe-srl-batcher", daemon=True)
        self._thread.start()

    def sample(self, prompt: Sequence[int]) -> Sample:
        """One sample after a prompt; waits for its turn. Raises CancelledError when closed, and whatever the sampler raises."""
        future: Future[Sample] = Future()
        with self._lock:
            if self._closed.is_set():
                raise CancelledError
            self._open.add(future)
            self._waiting.put((prompt, future))
        return future.result()

    def close(self) -> None:
        """Turn everyone who waits away. A call of the sampler that is under way ends by itself, and its result is dropped."""
        with self._lock:
            self._closed.set()
            for future in self._open:
                future.cancel()
            self._open.clear()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            if not (batch := self._next_batch()):
                continue
            begun = time.monotonic()
            options = replace(self._options, seed=self._options.seed + self.counts.calls)
            try:
                groups = self._sampler.sample([prompt for prompt, _ in batch], options)
                answers: list[Sample | BaseException] = [group[0] for group in groups]
            except Exception as error:
                answers = [error] * len(batch)
            self.counts.calls += 1
            self.counts.prompts += len(batch)
            taken = time.monotonic() - begun
            self.counts.seconds += taken
            self._patience = max(self._linger, min(self._share * taken, _MOST_SECONDS))
            self._expected = len(batch) + self._waiting.qsize()
            with self._lock:
                for (_, future), answer in zip(batch, answers, strict=True):
                    self._answer(future, answer)

    def _answer(self, future: Future[Sample], answer: Sample | BaseException) -> None:
        if future not in self._open:
            return
        self._open.remove(future)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _next_batch(self) -> list[_Request]:
        """The first request, those that wait already, and those that come soon."""
        batch: list[_Request] = []
        deadline = 0.0
        while len(batch) < self._max_batch:
            wait = 0.2 if not batch else max(0.0, deadline - time.monotonic()) if len(batch) < self._expected else 0.0
            try:
                batch.append(self._waiting.get(timeout=wait) if wait else self._waiting.get_nowait())
            except queue.Empty:
                break
            deadline = deadline or time.monotonic() + self._patience
        return batch
