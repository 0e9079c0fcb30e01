"""The snapshots that a replay keeps: which image holds the state before step k of a trajectory.

Invariant: `snapshots.jsonl` in the run folder names every kept image before it exists, so that a run that is killed leaves none
that nobody knows of; of several lines for one (trajectory, k) the last one counts. Step k = number of steps is the final state.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import docker

from swe_srl.cluster.base import Cluster, Needs
from swe_srl.environments.docker import SNAPSHOTS, connect, docker_errors, remove_image, snapshot_image
from swe_srl.environments.podman import image_names
from swe_srl.environments.sandbox import Sandbox, Snapshot
from swe_srl.errors import UserError
from swe_srl.trajectories.storage import write_lines

FILE = "snapshots.jsonl"
Keep = Literal["all", "changed", "none"]
"""An image for each step; only where a step changed something, else the earlier one again; or nothing."""


class SnapshotMap:
    """Written by a replay, one line a step. Threads may share it, each with its own trajectory."""

    def __init__(self, client: docker.DockerClient, folder: Path, keep: Keep, finished: Collection[str] = ()) -> None:
        """Start a new map in a run folder. The images of a former one are removed: nothing would name them any more.

        finished: trajectories whose part of the former map stays.
        With `none` nothing is written and a former map stays.
        """
        self._client, self._file, self._keep = client, folder / FILE, keep
        self._last: dict[str, Snapshot] = {}
        self._lock = threading.Lock()
        if keep != "none" and self._file.exists():
            self._drop(read_map(self._file).keys() - finished)

    def keep(self, sandbox: Sandbox, trajectory: str, k: int) -> None:
        """Keep the state before step k. Called for k = 0, 1, 2 … of a trajectory in its one sandbox.

        k = 0 a second time begins the trajectory again: what was kept of it is removed.
        """
        if self._keep == "none":
            return
        if k == 0 and trajectory in self._last:
            with self._lock:
                del self._last[trajectory]
                self._drop({trajectory})
        name = f"{trajectory}@{k}"
        self._write(trajectory, k, snapshot_image(name))
        snapshot, last = sandbox.snapshot(name), self._last.get(trajectory)
        if self._keep == "changed" and last is not None and last.layers == snapshot.layers:
            self._write(trajectory, k, last.image)
            with docker_errors(f"snapshot {name}"):
                remove_image(self._client, snapshot.image)
        else:
            self._last[trajectory] = snapshot

    def rows(self, trajectory: str) -> list[tuple[int, str]]:
        """The steps of a trajectory whose state is kept, and its image."""
        return sorted(read_map(self._file).get(trajectory, {}).items()) if self._file.exists() else []

    def adopt(self, trajectory: str, rows: Iterable[tuple[int, str]], node: str) -> None:
        """Name the states of a trajectory that another machine keeps."""
        for k, image in rows:
            self._write(trajectory, k, image, node)

    def _write(self, trajectory: str, k: int, image: str, node: str | None = None) -> None:
        with self._lock:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(_line(trajectory, k, image, node))

    def _drop(self, trajectories: Collection[str]) -> None:
        """Remove the images of some trajectories, then their lines."""
        former = read_map(self._file)
        for image in {image for name in trajectories for image in former.get(name, {}).values()}:
            with docker_errors(f"snapshot {image}"):
                remove_image(self._client, image)
        kept = ((name, *item) for name, steps in former.items() if name not in trajectories for item in steps.items())
        write_lines(self._file, (_line(*row).rstrip() for row in kept))


def read_map(file: Path) -> dict[str, dict[int, str]]:
    """trajectory → k → image. Raises UserError naming the line that is broken; a last line cut off by a kill is left out."""
    found: dict[str, dict[int, str]] = {}
    for trajectory, k, image, _ in _rows(file):
        found.setdefault(trajectory, {})[k] = image
    return found


def _rows(file: Path) -> Iterator[tuple[str, int, str, str | None]]:
    """trajectory, k, image, node."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
            yield str(row["trajectory"]), int(row["k"]), str(row["image"]), row.get("node")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if line.endswith("\n"):
                raise UserError(f"{file}:{number}: not a line of a snapshot map: {error}") from error


def kept_whole(client: docker.DockerClient, folder: Path) -> dict[str, int]:
    """How many states each trajectory of a run folder has, for those none of whose images has been removed since.

    What another machine keeps is taken to be there.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    there = _images(client)
    there |= {image for _, _, image, node in _rows(file) if node is not None}
    return {name: len(steps) for name, steps in read_map(file).items() if there.issuperset(steps.values())}


def kept_here() -> set[str]:
    """The images of all states that this machine's daemon keeps. Raises UserError where none answers."""
    return _images(connect())


def find_homes(cluster: Cluster, states: Collection[str], needs: Needs) -> dict[str, str]:
    """State → the node that keeps it and could take a job that forks it, for those states that have one which answers."""
    if not states:
        return {}
    found, able = cluster.on_every_node(kept_here), cluster.nodes_for(needs)
    there = {node: kept for node, kept in found.items() if node in able and not isinstance(kept, Exception)}
    return {state: node for node, kept in there.items() for state in kept.intersection(states)}


def _images(client: docker.DockerClient) -> set[str]:
    with docker_errors("listing snapshots"):
        return {tag for image in client.api.images(SNAPSHOTS) for tag in image_names(image)}


def _line(trajectory: str, k: int, image: str, node: str | None = None) -> str:
    row: dict[str, Any] = {"trajectory": trajectory, "k": k, "image": image}
    return json.dumps(row if node is None else row | {"node": node}) + "\n"


def find_snapshot(folder: Path, step: str) -> str:
    """The image of `TRAJECTORY@K` in a run folder. Raises UserError with what there is instead."""
    file = folder / FILE
    if not file.exists():
        raise UserError(f"{folder} holds no snapshots; make them with `swe-srl replay … --out {folder} --snapshot changed`")
    trajectory, at, k = step.rpartition("@")
    if not at or not k.isdigit():
        raise UserError(f"{step!r} does not name a step: write TRAJECTORY@K, for example {next(iter(read_map(file)), 'run')}@0")
    steps = read_map(file).get(trajectory)
    if steps is None:
        raise UserError(f"{file}: no trajectory {trajectory!r}; it holds {', '.join(sorted(read_map(file))[:8])}")
    if int(k) not in steps:
        raise UserError(f"{file}: no step {k} of {trajectory}; it holds {min(steps)} to {max(steps)}")
    return steps[int(k)]
