"""The nodes of a Ray cluster.

Invariant: Ray alone decides what fits where and runs it again where a node is lost; here is only decided which node would be
best (the one that has the job's image) and how many jobs are handed over at a time. Every wait ends within `patience`, or says
what it waits for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import swe_srl
from swe_srl.cluster.base import ONE_CPU, Done, Job, Needs, Payload, Result, Work
from swe_srl.cluster.placing import Placed, place
from swe_srl.errors import UserError

CONTAINERS = "containers"
"""A node may declare how many sandboxes it takes at a time: `ray start --resources '{"containers": 8}'`."""
DISK = "disk_gb"
"""A node may declare how many GB sandboxes may fill together."""
_TRIES = 3
"""How often a job is run again whose node or process was lost."""
_PACE_SECONDS = 5.0


class RayCluster:
    """Jobs as tasks of a Ray cluster."""

    def __init__(self, address: str | None, say: Callable[[str], None], patience: float = 300.0) -> None:
        """Join a cluster.

        address: of its head or its client port; None for the one that runs here (or RAY_ADDRESS), or else a new one.
        patience: seconds after which a wait with nothing in sight is given up.
        Raises UserError where no cluster answers.
        """
        self._say, self._patience = say, patience
        self._homes: dict[str, str] = {}
        """Image → the node that a job of it ended on last."""
        self._joined = not ray.is_initialized()
        if self._joined:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
            except (RayError, ConnectionError, ValueError, OSError, RuntimeError) as error:
                raise UserError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error

    def run(
        self,
        work: Work[Payload, Result],
        jobs: Iterable[Job[Payload]],
        needs: Needs = ONE_CPU,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Generator[Done[Payload, Result], None, None]:
        """See `Cluster.run`. Ticks stay on the node.

        Raises UserError where no node that is there could ever take such a job, or where one runs another version.
        """
        waiting = iter(jobs)
        running: dict[Any, Job[Payload]] = {}
        shared = ray.put(work)
        options = _options(needs)
        moved = time.monotonic()
        try:
            while True:
                room = self._wait_for_room(lambda nodes: _wanted(needs, nodes))
                while len(running) < room and (job := next(waiting, None)) is not None:
                    running[self._submit(job, shared, options)] = job
                if not running:
                    return
                ended, _ = ray.wait(list(running), num_returns=1, timeout=_PACE_SECONDS)
                if ended:
                    moved = time.monotonic()
                    done = _fetch(running.pop(ended[0]), ended[0])
                    if done.job.image is not None and done.error is None:
                        self._homes[done.job.image] = done.node
                    yield done
                elif time.monotonic() - moved > self._patience:
                    moved = time.monotonic()
                    names = ", ".join(job.name for job in list(running.values())[:5])
                    self._say(f"waiting for {len(running)} jobs on {len(_alive())} nodes for {self._patience:g} s: {names}")
        except BaseException:
            self._stop(work, list(running))
            raise

    def place(
        self,
        make: Callable[[], Any],
        *,
        cpus: float = 1.0,
        gpus: float = 0.0,
        concurrency: int = 1,
        seconds: float = 3600.0,
        node: str | None = None,
        restarts: int = 0,
    ) -> Placed:
        """What a picklable function makes, in a process of its own on a node that has so much free. It stays until closed.

        concurrency: calls that it takes at a time, in threads; the others wait.
        seconds: that making it may take, and each call that names no time-out.
        node: id of the one that is preferred where it has room.
        restarts: how often it is made again where its process or node is lost, and what was called then is called again.
        Raises what `make` raises; UserError where no node has the room; PlaceLost where its process ends; TimeoutError.
        """
        self._wait_for_room(lambda _: {name: value for name, value in (("CPU", cpus), ("GPU", gpus)) if value})
        return place(make, cpus, gpus, concurrency, node, seconds, restarts, self._patience, self._say)

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
            resources = {key: node["Resources"].get(key) for key in ("CPU", "GPU", "memory", CONTAINERS, DISK)}
            rows.append(
                {
                    "node": name[:8],
                    "host": node["NodeManagerHostname"],
                    **resources,
                    **({"error": str(there)} if isinstance(there, Exception) else there),
                }
            )
        return rows

    def close(self) -> None:
        """Leave the cluster, where this joined it."""
        if self._joined and ray.is_initialized():
            ray.shutdown()

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _submit(self, job: Job[Any], shared: Any, options: Mapping[str, Any]) -> Any:
        chosen = dict(options)
        home = self._homes.get(job.image) if job.image is not None else None
        if job.node is not None:
            chosen["scheduling_strategy"] = NodeAffinitySchedulingStrategy(job.node, soft=True)
        elif home is not None:
            chosen["scheduling_strategy"] = NodeAffinitySchedulingStrategy(home, soft=True, _spill_on_unavailable=True)
        return _task.options(name=job.name, **chosen).remote(shared, job.payload, swe_srl.__version__)

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


@ray.remote
def _task(work: Any, payload: Any, version: str) -> tuple[str, Any]:
    """The node's id and the result."""
    node = str(ray.get_runtime_context().get_node_id())
    if version != swe_srl.__version__:
        raise UserError(f"node {node} runs swe-srl {swe_srl.__version__}, and this is {version}; install the same on all")
    return node, work(payload, lambda: None)


@ray.remote(num_cpus=0)
def _on_node(call: Any) -> Any:
    return call()


def _fetch(job: Job[Payload], ref: Any) -> Done[Payload, Any]:
    try:
        node, result = ray.get(ref)
    except RayTaskError as error:  # raised by the work itself
        raise error.cause from error
    except RayError as error:
        return Done(job, None, f"lost with its node or process, {1 + _TRIES} times: {str(error).splitlines()[0]}", "")
    return Done(job, result, None, node)


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


def _described(node: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in node["Resources"].items() if name in ("CPU", "GPU", "memory", CONTAINERS, DISK)}
    return f"{node['NodeManagerHostname']} has " + ", ".join(f"{value:g} {name}" for name, value in shown.items())
