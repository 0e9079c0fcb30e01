"""Every node of a cluster that takes sandboxes comes to have the images of tasks, before anything asks for them.

Invariant: an image counts as had only by the node that said so; a node that is lost meanwhile is a failure with its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import docker

from swe_srl.cluster.base import Cluster, Job
from swe_srl.environments.sandbox import Limits
from swe_srl.environments.shipping import Shipping, send_image
from swe_srl.environments.task import Task
from swe_srl.environments.working import SandboxWork, needs_of
from swe_srl.errors import UserError

_NEEDS = needs_of(Limits())


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task's image on a node."""

    task: Task
    image: str
    node: str


@dataclass
class FetchWork(SandboxWork):
    """Has an image on the machine; why not, where it cannot be had."""

    def __call__(self, wanted: Wanted, tick: Callable[[], None]) -> str | None:
        """See `Work`."""
        try:
            self.have(wanted.image, wanted.task)
        except UserError as error:
            return str(error)
        return None


def spread_images(
    cluster: Cluster,
    client: docker.DockerClient,
    images: Mapping[str, str],
    tasks: Mapping[str, Task],
    shipping: Shipping,
    say: Callable[[str], None],
) -> tuple[Counter[str], list[dict[str, str]]]:
    """Bring images to all nodes that take sandboxes.

    images: task id → image, which this machine has. Returns how many nodes have each task's image now; and of each that one
    has not, the task and the reason. Raises UserError where an image cannot be sent, or no node takes sandboxes.
    """
    for tag in sorted(set(images.values())):
        send_image(client, tag, shipping, say)
    nodes = cluster.nodes_for(_NEEDS)
    had: Counter[str] = Counter()
    failed: list[dict[str, str]] = []
    with closing(cluster.run(FetchWork(shipping=shipping), _jobs(images, tasks, nodes), _NEEDS)) as ends:
        for done in ends:
            wanted = done.job.payload
            elsewhere = "the node was lost" if done.node != wanted.node else None
            if reason := done.error or elsewhere or done.result:
                failed.append({"task": wanted.task.id, "reason": f"node {wanted.node[:8]}: {reason}"})
            else:
                had[wanted.task.id] += 1
    return had, failed


def _jobs(images: Mapping[str, str], tasks: Mapping[str, Task], nodes: list[str]) -> Iterator[Job[Wanted]]:
    for task, image in images.items():
        for node in nodes:
            yield Job(f"{image} on {node[:8]}", Wanted(tasks[task], image, node), image, node)
