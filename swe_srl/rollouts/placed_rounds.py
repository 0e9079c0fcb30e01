"""A `Meeting` for rollouts on the nodes of a cluster, kept on the machine that samples.

Invariant: turns travel without the tokens of earlier answers, which no prompt is made of. Where the rounds are lost nothing can
be sampled any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from swe_srl.cluster.placing import Placed, PlaceLost
from swe_srl.cluster.ray import RayCluster
from swe_srl.policy.base import SamplerLost
from swe_srl.rollouts.agent import Reply
from swe_srl.rollouts.record import without_tokens
from swe_srl.rollouts.rounds import Asked, Rounds, Tools
from swe_srl.trajectories.model import Step

_PATIENCE_S = 600.0
"""Longer than a command may take: then a node is lost that no other stands in for."""
_ANSWER_S = 4 * 3600.0
"""How long an answer may take."""
_OTHERS = 8
"""Calls besides those that wait for answers."""


@dataclass(frozen=True, slots=True)
class PlacedRounds:
    """Implements `swe_srl.rollouts.rounds.Meeting`. All but `close` raise SamplerLost where the rounds are gone."""

    placed: Placed

    def begin(self, names: Iterable[str]) -> None:
        """See `Meeting`."""
        self._call("begin", list(names))

    def ask(self, name: str, step: Step, tools: Tools) -> Reply:
        """See `Meeting`."""
        reply: Reply = self._call("ask", name, replace(step, trajectory=without_tokens(step.trajectory)), tools)
        return reply

    def leave(self, name: str) -> None:
        """See `Meeting`."""
        self._call("leave", name)

    def gather(self, seconds: float) -> tuple[list[Asked], list[str]]:
        """See `Meeting`."""
        found: tuple[list[Asked], list[str]] = self._call("gather", seconds)
        return found

    def answer(self, answers: Mapping[int, Reply | Exception]) -> None:
        """See `Meeting`."""
        self._call("answer", dict(answers))

    def close(self) -> None:
        """See `Meeting`. Where the rounds are gone there is nobody left to turn away."""
        with suppress(SamplerLost):
            self._call("close")

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return self.placed.call(method, *arguments)
        except (PlaceLost, TimeoutError) as error:
            raise SamplerLost(f"rollouts and the sampler cannot meet any more: {error}") from error


def place_rounds(cluster: RayCluster, rollouts: int) -> PlacedRounds:
    """Rounds for so many rollouts at a time. They end with this process."""
    placed = cluster.place(
        partial(Rounds, _PATIENCE_S),
        cpus=0.0,
        concurrency=rollouts + _OTHERS,
        node=cluster.here(),
        only_there=True,
        seconds=_ANSWER_S,
    )
    return PlacedRounds(placed)
