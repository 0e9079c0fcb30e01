"""A model on one node of a cluster, asked by the rollouts of all nodes.

Invariant: prompts are encoded and sampled where the model is, those that wait together in one batch, as on one machine. Turns
travel there without the tokens of earlier answers, which no prompt is made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from swe_srl.cluster.base import Cluster
from swe_srl.cluster.placing import Placed, PlaceLost
from swe_srl.cluster.ray import RayCluster
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rollouts.agent import PolicyFault, Reply
from swe_srl.rollouts.command import PolicyChoice, absolute, open_policy
from swe_srl.rollouts.policies import Tools
from swe_srl.rollouts.record import without_tokens
from swe_srl.trajectories.model import Step

_ASKING = 512
"""Rollouts that may wait for answers at a time; more wait for these."""
_RESTARTS = 3
"""How often a model whose process or node was lost is loaded again, and asked again."""


class PolicyServer:
    """What is placed: the policy as one machine has it."""

    def __init__(self, choice: PolicyChoice, prompt: PromptOptions) -> None:
        """Loads the model. Raises what `open_policy` raises."""
        self._open = ExitStack()
        self._policy: Any
        self._policy, self._fitted = self._open.enter_context(open_policy(choice, prompt, []))

    def fitted(self) -> PromptOptions:
        """The prompt options with the token budget that the model's context leaves."""
        return self._fitted

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        reply: Reply = self._policy.reply(step, tools)
        return reply

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """See `Writer.ask`."""
        reply: Reply = self._policy.ask(messages)
        return reply

    def close(self) -> None:
        """Give back the model."""
        self._open.close()


@dataclass(slots=True)
class ServedPolicy:
    """A `PolicyServer` as a policy, on any node."""

    name: str
    placed: Placed

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        return self._asked("reply", replace(step, trajectory=without_tokens(step.trajectory)), tools)

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """See `Writer.ask`."""
        return self._asked("ask", messages)

    def close(self) -> None:
        """Nothing is held here: who waits is ended with its process, and the model by who placed it."""

    def _asked(self, method: str, *question: Any) -> Reply:
        try:
            reply: Reply = self.placed.call(method, *question)
        except (PlaceLost, TimeoutError) as error:
            raise PolicyFault(str(error)) from error
        return reply


@contextmanager
def serve_policy(cluster: Cluster, choice: PolicyChoice, prompt: PromptOptions) -> Iterator[tuple[ServedPolicy, PromptOptions]]:
    """A model for all nodes, loaded on the machine that gives the jobs, or where the cluster has its GPUs."""
    if not isinstance(cluster, RayCluster):
        raise TypeError("only the nodes of a Ray cluster are served")
    make = partial(PolicyServer, replace(choice, model=absolute(choice.model)), prompt)
    gpus = min(1.0, cluster.most("GPU"))
    placed = cluster.place(make, cpus=0.0, gpus=gpus, concurrency=_ASKING, node=cluster.here(), restarts=_RESTARTS)
    try:
        yield ServedPolicy(choice.model, placed), placed.call("fitted")
    finally:
        placed.close()
