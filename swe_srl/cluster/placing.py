"""Objects that live in a process of their own on one node of a Ray cluster, and are called from anywhere in it.

Invariant: an object is made once. Where its process or its node is gone, so is what it held, and every call says so with
`PlaceLost`; it is made again only where whoever placed it said so. Every wait has a limit, and says what it waited for.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import swe_srl
from swe_srl.errors import UserError

_CLOSING_SECONDS = 10.0
_PACE_SECONDS = 5.0


class PlaceLost(Exception):
    """The process or the node of a placed object is gone, or cannot be reached any more."""


@dataclass(frozen=True, slots=True)
class Placed:
    """An object on a node. It may be pickled and called by jobs on other nodes; it ends with the process that placed it."""

    name: str
    """What it is called in messages."""
    node: str
    """Id of the node that it was placed on."""
    seconds: float
    """How long a call may take that names no time-out."""
    _actor: Any

    def call(self, method: str, /, *args: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        """What a method of the object returns.

        timeout: in seconds. What takes longer goes on there, and its result is lost.
        Raises what the method raises, PlaceLost, and TimeoutError.
        """
        limit = self.seconds if timeout is None else timeout
        what = f"{self.name}.{method} on node {self.node[:8]}"
        try:
            return _result(self._actor.call.remote(method, args, kwargs), limit, what)
        except RayError as error:
            raise PlaceLost(f"{what}: {_reason(error)}") from error

    def close(self) -> None:
        """Have the object close itself, where it can, and end its process. May be called twice, and of what is lost."""
        with suppress(PlaceLost, TimeoutError):
            self.call("close", timeout=_CLOSING_SECONDS)
        with suppress(RayError):
            ray.kill(self._actor)


def place(
    make: Callable[[], Any],
    cpus: float,
    gpus: float,
    concurrency: int,
    node: str | None,
    only_there: bool,
    seconds: float,
    restarts: int,
    patience: float,
    say: Callable[[str], None],
) -> Placed:
    """See `RayCluster.place`. What none of the nodes could ever take is not noticed here."""
    name = name_of(make)
    options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_concurrency": concurrency}
    options |= {"max_restarts": restarts, "max_task_retries": restarts}
    if node is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(
            node, soft=not only_there, _spill_on_unavailable=not only_there
        )
    # Under a name of its own: Ray's dashboard and the list of processes say what is held.
    holder = type(name, (_Holder,), {})
    actor: Any = ray.remote(**options)(holder).remote(make, swe_srl.__version__)
    try:
        begun = actor.node.remote()
        if not ray.wait([begun], timeout=min(_PACE_SECONDS, patience))[0]:
            say(f"waiting up to {patience:g} s for {name}: {gpus:g} GPU and {cpus:g} CPU have to be free on one node")
        if not ray.wait([begun], timeout=patience)[0]:
            raise UserError(f"{name} needs {gpus:g} GPU and {cpus:g} CPU, which no node had free within {patience:g} s")
        there = str(_result(begun, _PACE_SECONDS, f"the node of {name}"))
        made = _result(actor.kind.remote(), seconds, f"{name} to be made on node {there[:8]}")
    except RayError as error:
        raise PlaceLost(f"{name}: {_reason(error)}") from error
    except BaseException:
        ray.kill(actor)
        raise
    return Placed(str(made), there, seconds, actor)


def name_of(make: Callable[[], Any]) -> str:
    """What is made, as messages and the node's list of processes (`ray::NAME`) have it."""
    return name_of(make.func) if isinstance(make, functools.partial) else getattr(make, "__name__", type(make).__name__)


class _Holder:
    """A process that holds one object."""

    def __init__(self, make: Callable[[], Any], version: str) -> None:
        self._make, self._version = make, version
        self._made: Any = None
        self._making = threading.Lock()

    def node(self) -> str:
        here = str(ray.get_runtime_context().get_node_id())
        if self._version != swe_srl.__version__:
            raise UserError(f"node {here} runs swe-srl {swe_srl.__version__}, this is {self._version}; install the same on all")
        return here

    def kind(self) -> str:
        return type(self._object()).__name__

    def call(self, method: str, args: Any, kwargs: Any) -> Any:
        if method == "close" and not hasattr(self._object(), "close"):
            return None
        return getattr(self._object(), method)(*args, **kwargs)

    def _object(self) -> Any:
        """Made when it is first asked for, so that what making it raises is an answer and not the end of the process."""
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made


def _result(ref: Any, seconds: float, what: str) -> Any:
    """Raises what was raised there, TimeoutError, and RayError where there is no there any more."""
    try:
        return ray.get(ref, timeout=seconds)
    except GetTimeoutError as error:
        raise TimeoutError(f"waited {seconds:g} s for {what}") from error
    except RayTaskError as error:
        raise error.cause from error


def _reason(error: RayError) -> str:
    lost = "its process or its node is gone" if isinstance(error, RayActorError) else type(error).__name__
    return f"{lost} ({str(error).strip().splitlines()[0]})"
