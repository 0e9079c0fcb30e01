"""Where the rollouts of outcome stages are made: in sandboxes of this machine, or of a cluster's nodes.

Invariant: they are sampled here either way, in the same rounds and with the same numbers, so that the site decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import docker

from swe_srl.cluster.base import Cluster
from swe_srl.cluster.local import LocalCluster
from swe_srl.config import OutcomeStage
from swe_srl.environments.nodes import Nodes
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.shipping import send_image
from swe_srl.environments.working import needs_of
from swe_srl.errors import UserError
from swe_srl.rollouts.lockstep import InStepWork, Seat
from swe_srl.rollouts.rounds import Meeting, Rounds
from swe_srl.rollouts.run import LIMITS, Act, RolloutOptions


@dataclass(frozen=True, slots=True)
class Site:
    """Where rollouts are made."""

    client: docker.DockerClient
    """Of this machine."""
    say: Callable[[str], None]
    nodes: Nodes | None = None
    """Those whose daemons have the sandboxes; None: this machine's has them."""
    meeting: Meeting = field(default_factory=Rounds)
    """Where they meet the sampler."""

    @classmethod
    def open(cls, stages: Mapping[int, OutcomeStage], nodes: Nodes | None, say: Callable[[str], None]) -> Site:
        """Of some stages by index. Raises UserError where there is no daemon, or the nodes have no room for a stage."""
        client = connect_and_reap()
        if nodes is None:
            return cls(client, say)
        from swe_srl.rollouts.placed_rounds import place_rounds

        room = nodes.cluster.at_a_time(needs_of(LIMITS))
        for index, stage in stages.items():
            if stage.workers > room:
                raise UserError(
                    f"stages.{index}.workers = {stage.workers}: so many rollouts go in step, and the nodes of the cluster take "
                    f"{room} sandboxes at a time: lower it, or add nodes"
                )
        return cls(client, say, nodes, place_rounds(nodes.cluster, max(stage.workers for stage in stages.values())))

    def cluster(self, workers: int) -> Cluster:
        """That carries the rollouts."""
        return LocalCluster(workers) if self.nodes is None else self.nodes.cluster

    def work(self, model: str, options: RolloutOptions, act: Act) -> InStepWork:
        """That makes rollouts of a model."""
        shipping = None if self.nodes is None else self.nodes.shipping
        return InStepWork(Seat(self.meeting, model), options, act, shipping=shipping, client=self.client)

    def send(self, images: Collection[str]) -> None:
        """Put images where nodes find them. Raises UserError where that fails."""
        if self.nodes is not None:
            for tag in sorted(images):
                send_image(self.client, tag, self.nodes.shipping, self.say)
