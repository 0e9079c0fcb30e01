"""Threads of this process.

Invariant: when they are left, by their end or otherwise, none of them runs any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from swe_srl.cluster.base import ONE_CPU, Done, Job, Needs, Payload, Result, Work

HERE = "local"
"""The name of this machine as a node."""


@contextmanager
def threads(workers: int, abort: Callable[[], object]) -> Iterator[ThreadPoolExecutor]:
    """So many threads. Left by an error or Ctrl-C, `abort` is called until all of them have ended, and once more."""
    pool = ThreadPoolExecutor(max_workers=max(1, workers))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        ending = threading.Thread(target=pool.shutdown, daemon=True)
        ending.start()
        # Until every thread has ended: one that was just beginning something would otherwise carry it to its end.
        while ending.is_alive():
            abort()
            ending.join(0.2)
        abort()
        raise
    pool.shutdown(wait=True)


class LocalCluster:
    """`workers` jobs at a time, each in a thread."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)

    def run(
        self,
        work: Work[Payload, Result],
        jobs: Iterable[Job[Payload]],
        needs: Needs = ONE_CPU,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Generator[Done[Payload, Result], None, None]:
        """See `Cluster.run`. What jobs need is not looked at: `workers` says how many fit this machine."""
        waiting = iter(jobs)
        running: dict[Future[Result], Job[Payload]] = {}
        with threads(self._workers, work.abort) as pool:
            while True:
                while len(running) < self._workers and (job := next(waiting, None)) is not None:
                    running[pool.submit(work, job.payload, on_tick)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield Done(running.pop(future), future.result(), None, HERE)

    def nodes_for(self, needs: Needs) -> list[str]:
        """See `Cluster.nodes_for`."""
        return [HERE]

    def on_every_node(self, call: Callable[[], Result], seconds: float = 30.0) -> dict[str, Result | Exception]:
        """See `Cluster.on_every_node`. The call takes what it takes."""
        try:
            return {HERE: call()}
        except Exception as error:
            return {HERE: error}

    def close(self) -> None:
        """Nothing is held between runs."""

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
