"""The one seam between what is done and where: work, jobs and clusters.

Invariant: each job ends exactly once, with its result or with the reason why there is none. The order in which jobs end is not
the one in which they were given, and no result depends on the node that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Payload = TypeVar("Payload")
Result = TypeVar("Result")
_PayloadIn = TypeVar("_PayloadIn", contravariant=True)
_ResultOut = TypeVar("_ResultOut", covariant=True)


class Work(Protocol[_PayloadIn, _ResultOut]):
    """What is done with a payload. It travels to other machines: it holds plain data, and opens what it needs where it runs."""

    def __call__(self, payload: _PayloadIn, tick: Callable[[], None], /) -> _ResultOut:
        """The result for one payload. `tick` may be called as parts of it are done. What it raises ends the whole run."""
        ...

    def abort(self) -> None:
        """Stop what calls in this process have begun, and remove what dead processes of this machine left."""
        ...


@dataclass(frozen=True, slots=True)
class Job(Generic[Payload]):
    """One piece of work."""

    name: str
    """What it is called in messages."""
    payload: Payload
    image: str | None = None
    """What its node should best hold already."""
    node: str | None = None
    """The node that it waits for, as long as that is there."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Payload, Result]):
    """A job that has ended."""

    job: Job[Payload]
    result: Result | None
    error: str | None
    """Why there is no result: the nodes that tried were lost."""
    node: str
    """Where it ended; empty where that is not known."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one job takes of its node while it runs."""

    cpus: float = 1.0
    memory_bytes: int = 0
    disk_bytes: int = 0


ONE_CPU = Needs()


class Cluster(Protocol):
    """Carries out jobs. Used as a context manager."""

    def run(
        self,
        work: Work[Payload, Result],
        jobs: Iterable[Job[Payload]],
        needs: Needs = ONE_CPU,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Generator[Done[Payload, Result], None, None]:
        """Yield jobs as they end. `jobs` is drawn from as there is room, never far ahead.

        on_tick: called for each tick of a job, on another machine all of them when the job ends.

        Closing the generator (use `contextlib.closing`: an exception of the caller's does not close it), or an exception in it,
        stops what is running and leaves nothing behind.
        """
        ...

    def nodes_for(self, needs: Needs) -> list[str]:
        """The nodes that could take such a job."""
        ...

    def on_every_node(self, call: Callable[[], Result], seconds: float = 30.0) -> Mapping[str, Result | Exception]:
        """Node → what a picklable call returns there, or why it does not within so many seconds."""
        ...

    def close(self) -> None:
        """Give back what the cluster holds."""
        ...

    def __enter__(self) -> Cluster: ...

    def __exit__(self, *exc_info: object) -> None: ...
