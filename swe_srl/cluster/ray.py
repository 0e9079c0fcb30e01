"""The nodes of a Ray cluster.

Invariant: Ray alone decides what fits where and runs it again where a node is lost; here is only decided which node would be
best (the one that has the job's image) and how many jobs are handed over at a time. Every wait ends within `limit`, and says
what it waits for after `patience`.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# Ray would answer a call after the connection is lost by joining any cluster of this machine, or starting one.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import swe_srl
from swe_srl.cluster.base import ONE_CPU, Done, Job, Needs, Payload, Result, Work
from swe_srl.cluster.board import Notice, notices
from swe_srl.cluster.head import GO_ON, watched
from swe_srl.cluster.metrics import metrics
from swe_srl.cluster.placing import Placed, place
from swe_srl.cluster.whereabouts import Whereabouts, begin
from swe_srl.errors import UserError

CONTAINERS = "containers"
"""A node may declare how many sandboxes it takes at a time: `ray start --resources '{"containers": 8}'`."""
DISK = "disk_gb"
"""A node may declare how many GB sandboxes may fill together."""
_SHOWN = ("CPU", "GPU", "memory", CONTAINERS, DISK)
_TRIES = 3
"""How often a job is run again whose node or process was lost."""
_JOINS = 3
"""How often joining is tried."""
_PACE_SECONDS = 5.0


class RayCluster:
    """Jobs as tasks of a Ray cluster."""

    def __init__(
        self, address: str | None, say: Callable[[str], None], patience: float = 300.0, limit: float = 4 * 3600.0
    ) -> None:
        """Join a cluster.

        address: of its head or its client port; None for the one that runs here (or RAY_ADDRESS), or else a new one.
        patience: seconds after which a wait for a node is given up, and one for jobs is told.
        limit: seconds without the end of any job after which the run is given up.
        Raises UserError where no cluster answers.
        """
        self._say, self._patience, self._limit, self._address = say, patience, limit, address
        self._homes: dict[str, str] = {}
        """Image → the node that a job of it ended on last."""
        self._joined = not ray.is_initialized()
        if self._joined:
            for left in reversed(range(_JOINS)):
                try:
                    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
                    break
                except (RayError, ConnectionError, ValueError, OSError, RuntimeError) as error:
                    # The head begins a process for each that joins by its client port, and that fails now and then.
                    if left and "Initialization failure from server" in str(error):
                        continue
                    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                    raise UserError(f"no Ray cluster answers at {address or 'this machine'}: {reason}") from error

    def run(
        self,
        work: Work[Payload, Result],
        jobs: Iterable[Job[Payload]],
        needs: Needs = ONE_CPU,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Generator[Done[Payload, Result], None, None]:
        """See `Cluster.run`. A job's ticks are told when it ends.

        Raises UserError where no node that is there could ever take such a job, where one runs another version, where no job
        ends for `limit` seconds, or where the head of the cluster is gone.
        """
        waiting = iter(jobs)
        running: dict[Any, _Given] = {}
        shared = [ray.put(work)]  # as it is inside something, a node's process gets it once and not with every job
        # By the kind of work: Ray counts tasks by name for as long as the driver lives, and a name a job would add up.
        tasks = _Tasks({"name": type(work).__name__, **_options(needs)})
        moved = said = time.monotonic()
        looked = -_PACE_SECONDS
        notice, places = Notice(type(work).__name__), Whereabouts()

        def give(job: Job[Any], tries: int = 1) -> None:
            key = places.key()
            task = tasks.at(job.node, self._homes.get(job.image or ""))
            running[task.remote(shared, job.payload, key, swe_srl.__version__)] = _Given(job, key, tries)

        with self._attended(work, running, notice, places):
            while True:
                room = self._wait_for_room(lambda nodes: _wanted(needs, nodes))
                while len(running) < room and (job := next(waiting, None)) is not None:
                    give(job)
                if not running:
                    return
                notice.write(len(running), room // 2)
                ended, _ = ray.wait(list(running), num_returns=1, timeout=min(_PACE_SECONDS, self._patience))
                now = time.monotonic()
                if ended:
                    moved = said = now
                    done, ticks = _fetch(running.pop(ended[0]).job, ended[0])
                    for _ in range(ticks):
                        on_tick()
                    if done.job.image is not None and done.error is None:
                        self._homes[done.job.image] = done.node
                    notice.ended(lost=done.error is not None)
                    if done.error is not None:
                        metrics().lost(type(work).__name__)
                    yield done
                elif now - moved > self._limit:
                    raise UserError(f"no job has ended for {self._limit:g} s; {_awaited(running)}; {GO_ON}")
                elif now - said > self._patience:
                    said = now
                    self._say(f"waiting for {_awaited(running)}; none has ended for {said - moved:.0f} s")
                if now - looked > _PACE_SECONDS:
                    looked = now
                    for lost in places.lost({ref: given.key for ref, given in running.items()}, _ids()):
                        ray.cancel(lost, force=True)
                        again = running.pop(lost)
                        if again.tries > _TRIES:
                            yield Done(again.job, None, f"lost with its node, {again.tries} times", "")
                        else:
                            give(again.job, again.tries + 1)

    def place(
        self,
        make: Callable[[], Any],
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        concurrency: int = 1,
        seconds: float = 3600.0,
        node: str | None = None,
        only_there: bool = False,
        restarts: int = 0,
    ) -> Placed:
        """What a picklable function makes, in a process of its own on a node that has so much free. It stays until closed.

        concurrency: calls that it takes at a time, in threads; the others wait.
        seconds: that making it may take, and each call that names no time-out.
        node: id of the one that is preferred where it has room; with `only_there` no other takes it.
        restarts: how often it is made again where its process or node is lost, and what was called then is called again.
        Raises what `make` raises; UserError where no node has the room; PlaceLost where its process ends; TimeoutError.
        """
        self._wait_for_room(lambda _: {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value})
        return place(make, cpus, gpus, concurrency, node, only_there, seconds, restarts, self._patience, self._say)

    def here(self) -> str:
        """Id of the node of this process; of the head, where the cluster was joined through its client port."""
        return str(ray.get_runtime_context().get_node_id())

    def most(self, resource: str) -> float:
        """The most that one node has of a resource, by Ray's name of it."""
        return max((float(node["Resources"].get(resource, 0.0)) for node in _alive()), default=0.0)

    def status(self, look: Callable[[], Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A row a node: its resources, and what `look` finds there (only `error` where it fails)."""
        found = self.on_every_node(look)
        rows = []
        for node in _alive():
            name = str(node["NodeID"])
            there = found.get(name, TimeoutError("it came just now"))
            resources = {key: node["Resources"].get(key) for key in _SHOWN}
            rows.append(
                {
                    "node": name[:8],
                    "host": node["NodeManagerHostname"],
                    **resources,
                    **({"error": str(there)} if isinstance(there, Exception) else there),
                }
            )
        return rows

    def runs(self) -> list[dict[str, Any]]:
        """A row a run that has jobs on the cluster: how many wait, run and have ended, and how fast."""
        return notices()

    def free(self) -> dict[str, float]:
        """What nodes have left of their resources, together."""
        left, all_ = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
        return {key: float(left.get(key, 0.0)) for key in _SHOWN if key in all_}

    def close(self) -> None:
        """Leave the cluster, where this joined it."""
        if self._joined and ray.is_initialized():
            ray.shutdown()

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def _attended(
        self, work: Work[Any, Any], running: Mapping[Any, Any], notice: Notice, places: Whereabouts
    ) -> Iterator[None]:
        """Says whether the head answers. Left by an error, what runs is stopped; raises UserError if the cluster is gone."""
        client = self._address is not None and self._address.startswith("ray://")
        with watched(str(self._address) if client else str(ray.get_runtime_context().gcs_address), self._say):
            try:
                yield
                notice.take_down()
                places.forget()
            except BaseException as error:
                of_work = isinstance(error.__cause__, RayTaskError)
                if ray.is_initialized() and (of_work or not isinstance(error, ConnectionError)):
                    notice.take_down()
                    places.forget()
                    self._stop(work, list(running))
                elif isinstance(error, Exception):
                    reason = str(error).partition("\n")[0]
                    raise UserError(f"the connection to the cluster is lost ({reason}); {GO_ON}") from error
                raise

    def _wait_for_room(self, wanting: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]]) -> int:
        """How many jobs may be handed over: what the nodes can run at a time, and as many again to wait for them.

        wanting: what one takes of its node, by Ray's names of resources, given the nodes.
        Raises UserError where no node that could take one has come within `patience`.
        """
        end = time.monotonic() + self._patience
        said = False
        while True:
            nodes = _alive()
            wanted = wanting(nodes)
            if room := sum(_fitting(node["Resources"], wanted) for node in nodes):
                return 2 * room
            have = "; ".join(map(_described, nodes)) or "no node is alive"
            shown = ", ".join(f"{value:g} {name}" for name, value in wanted.items())
            if time.monotonic() > end:
                raise UserError(f"no node of the cluster can take what needs {shown}: {have}")
            if not said:
                said = True
                self._say(f"waiting up to {self._patience:g} s for a node with {shown}: {have}")
            time.sleep(min(1.0, self._patience / 10))

    def _stop(self, work: Work[Any, Any], running: list[Any]) -> None:
        """End what runs, then have every node remove what that leaves."""
        for ref in running:
            ray.cancel(ref, force=True)
        if running:
            ray.wait(running, num_returns=len(running), timeout=30)
        late = [node for node, done in self.on_every_node(work.abort).items() if isinstance(done, Exception)]
        if late:
            self._say(f"{len(late)} nodes have not cleaned up; what runs there is removed by the next run")

    def nodes_for(self, needs: Needs) -> list[str]:
        """See `Cluster.nodes_for`."""
        nodes = _alive()
        wanted = _wanted(needs, nodes)
        return [str(node["NodeID"]) for node in nodes if _fitting(node["Resources"], wanted)]

    def at_a_time(self, needs: Needs) -> int:
        """How many such jobs the nodes could take at a time, if they did nothing else."""
        nodes = _alive()
        wanted = _wanted(needs, nodes)
        return sum(_fitting(node["Resources"], wanted) for node in nodes)

    def on_every_node(self, call: Callable[[], Result], seconds: float = 30.0) -> dict[str, Result | Exception]:
        """See `Cluster.on_every_node`; a node's name is its id."""
        asked = {
            _on_node.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(call): str(
                node["NodeID"]
            )
            for node in _alive()
        }
        found: dict[str, Result | Exception] = dict.fromkeys(asked.values(), TimeoutError(f"no answer within {seconds:g} s"))
        if asked:
            for ref in ray.wait(list(asked), num_returns=len(asked), timeout=seconds)[0]:
                try:
                    found[asked[ref]] = ray.get(ref)
                except RayTaskError as error:
                    found[asked[ref]] = error.cause
                except RayError as error:
                    found[asked[ref]] = error
        return found


@dataclass(frozen=True, slots=True)
class _Given:
    """A job that is handed over."""

    job: Job[Any]
    key: str
    """See `Whereabouts`."""
    tries: int


class _Tasks:
    """The task with its options, made once for each node: one made for each job is garbage in circles."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._made: dict[tuple[str, bool] | None, Any] = {None: _task.options(**options)}

    def at(self, node: str | None, home: str | None) -> Any:
        """That waits for `node` as long as it is there; without one, that goes to `home` where it has room, or to any."""
        key = (node, False) if node is not None else (home, True) if home is not None else None
        if key is not None and key not in self._made:
            strategy = NodeAffinitySchedulingStrategy(key[0], soft=True, _spill_on_unavailable=key[1])
            self._made[key] = _task.options(scheduling_strategy=strategy, **self._options)
        return self._made[key]


@ray.remote
def _task(shared: Sequence[Any], payload: Any, key: str, version: str) -> tuple[str, Any, int]:
    """The node's id, the result, and the number of ticks. `shared`: the reference of the work. `key`: see `Whereabouts`."""
    node = str(ray.get_runtime_context().get_node_id())
    if version != swe_srl.__version__:
        raise UserError(f"node {node} runs swe-srl {swe_srl.__version__}, and this is {version}; install the same on all")
    begin(key, node)
    work = _work_of(shared[0])
    ticks = itertools.count()
    with metrics().job(type(work).__name__):
        return node, work(payload, lambda: next(ticks)), next(ticks)


@functools.lru_cache(maxsize=1)
def _work_of(reference: Any) -> Any:
    return ray.get(reference)


@ray.remote(num_cpus=0)
def _on_node(call: Any) -> Any:
    return call()


def _awaited(running: Mapping[Any, _Given]) -> str:
    names = ", ".join(given.job.name for given in list(running.values())[:5])
    return f"{len(running)} jobs on {len(_alive())} nodes: {names}"


def _fetch(job: Job[Payload], ref: Any) -> tuple[Done[Payload, Any], int]:
    """How a job ended, and how often it ticked."""
    try:
        node, result, ticks = ray.get(ref)
    except RayTaskError as error:  # raised by the work itself
        raise error.cause from error
    except RayError as error:
        return Done(job, None, f"lost with its node or process, {1 + _TRIES} times: {str(error).splitlines()[0]}", ""), 0
    return Done(job, result, None, node), ticks


def _options(needs: Needs) -> dict[str, Any]:
    wanted = _wanted(needs, _alive())
    return {
        "num_cpus": wanted.pop("CPU", 0.0),
        "memory": wanted.pop("memory", None),
        "resources": wanted,
        "max_retries": _TRIES,
        "retry_exceptions": False,
    }


def _wanted(needs: Needs, nodes: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By Ray's names of resources. Containers and disk count once any node has declared them: the others then have none."""
    wanted = {"CPU": needs.cpus, "memory": float(needs.memory_bytes)}
    declared = {CONTAINERS: 1.0, DISK: needs.disk_bytes / 1e9}
    wanted |= {name: value for name, value in declared.items() if any(name in node["Resources"] for node in nodes)}
    return {name: value for name, value in wanted.items() if value}


def _fitting(resources: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How many jobs a node takes at a time."""
    return int(min((resources.get(name, 0.0) / value for name, value in wanted.items()), default=1))


def _alive() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _ids() -> set[str]:
    return {str(node["NodeID"]) for node in _alive()}


def _described(node: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in node["Resources"].items() if name in ("CPU", "GPU", "memory", CONTAINERS, DISK)}
    return f"{node['NodeManagerHostname']} has " + ", ".join(f"{value:g} {name}" for name, value in shown.items())
