"""An engine, a sampler and rewards that several processes work for together.

Invariant: all processes make the same calls with the same arguments, and get the same results: those of one process, up to the
order in which numbers are added up. Each does its share (`shares.py`), which may be nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from swe_srl.policy.base import Sample, Sampler, SamplingOptions
from swe_srl.policy.samplers.rules import check_lengths
from swe_srl.rewards.compose import Rewards, Sampled
from swe_srl.rewards.reward import RewardedAnswer
from swe_srl.training.logprobs import BackwardResult, Engine, Example, LossFn
from swe_srl.training.processes import Processes
from swe_srl.training.sharding import PolicyWeights, ShardedModel
from swe_srl.training.shares import Piece, Plan, share_out, tree_pieces
from swe_srl.training.tree.planning import plan_tree

if TYPE_CHECKING:
    from swe_srl.policy.samplers.transformers import TransformersSampler

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SharedEngine:
    """Implements `swe_srl.training.logprobs.Engine`: the batch is shared out by the tokens the engine computes."""

    engine: Engine
    temperature: float
    """The engine's."""
    pieces: Callable[[Sequence[Example]], Sequence[Piece]]
    """What the engine makes of each example."""
    processes: Processes

    def logprobs(self, model: Any, examples: Sequence[Example]) -> list[Sequence[float]]:
        """See `Engine`."""
        plan = share_out(self.pieces(examples), self.processes.count)
        with self.processes.waiting("the log-probabilities of a batch"):
            mine = self.engine.logprobs(model, [examples[index] for index in plan[self.processes.rank]])
        return _in_order(plan, self.processes.gather("the log-probabilities of a batch", mine))

    def backward(self, model: Any, examples: Sequence[Example], loss_fn: LossFn) -> BackwardResult:
        """See `Engine`; the parameters must have no gradients yet, because those of all processes are added up."""
        assert all(parameter.grad is None for parameter in model.parameters())
        plan = share_out(self.pieces(examples), self.processes.count)
        mine = [examples[index] for index in plan[self.processes.rank]]
        # An engine takes the mean over its examples, and FSDP the mean over processes.
        averaged = self.processes.count if isinstance(model, ShardedModel) else 1
        factor = averaged * len(mine) / len(examples)
        with self.processes.waiting("the gradients of a batch"):
            result = self.engine.backward(model, mine, lambda logprobs_B_T, rows: loss_fn(logprobs_B_T, rows) * factor)
        if not isinstance(model, ShardedModel):
            self.processes.add_up("the gradients of a batch", model.parameters())
        results = self.processes.gather("the losses of a batch", result)
        return BackwardResult(
            loss=sum(result.loss for result in results) / averaged,
            answer_tokens=sum(result.answer_tokens for result in results),
            forward_tokens=sum(result.forward_tokens for result in results),
            separate_tokens=sum(result.separate_tokens for result in results),
            logprobs=_in_order(plan, [result.logprobs for result in results]),
        )


@dataclass(frozen=True, slots=True)
class SharedSampler:
    """Implements `swe_srl.policy.base.Sampler`: each process samples its share of the prompts from weights of its own."""

    sampler: TransformersSampler
    weights: PolicyWeights
    processes: Processes

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """See `Sampler`. A prompt's samples depend on its place in the call and the seed, not on who draws them."""
        longest = [0] * (options.n * options.max_tokens)
        plan = share_out(tree_pieces(plan_tree(prompts, [longest] * len(prompts))), self.processes.count)
        # All of them, so that all processes refuse together.
        check_lengths(prompts, options.max_tokens, self.sampler.context)
        places = plan[self.processes.rank]
        with self.weights.whole():
            mine = self.sampler.sample([prompts[place] for place in places], options, places)
        return _in_order(plan, self.processes.gather("the samples of a batch", mine))

    def update_weights(self, checkpoint: Path | None) -> None:
        """See `Sampler`."""
        self.sampler.update_weights(checkpoint)

    def take_weights(self) -> None:
        """See `Sampler`: weights are the policy's own."""

    def report(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {}

    def close(self) -> None:
        """See `Sampler`."""
        self.sampler.close()


@dataclass(slots=True)
class FirstSampler:
    """Implements `swe_srl.policy.base.Sampler`: the first process has engines, or asks a server, and tells the others."""

    sampler: Sampler | None
    """The first process's."""
    weights: PolicyWeights
    processes: Processes
    _updated: bool = True

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """See `Sampler`."""
        self.take_weights()
        return self.processes.from_first("the samples of a batch", lambda: self._own().sample(prompts, options))

    def update_weights(self, checkpoint: Path | None) -> None:
        """See `Sampler`."""
        self._updated = True
        if self.sampler is not None:
            self.sampler.update_weights(checkpoint)

    def take_weights(self) -> None:
        """See `Sampler`."""
        if not self._updated:
            return
        with self.weights.whole(in_first=True):
            self.processes.from_first("new weights to be taken", lambda: self._own().take_weights())
        self._updated = False

    def report(self) -> dict[str, Any]:
        """See `Sampler`: in the first process."""
        return {} if self.sampler is None else self.sampler.report()

    def close(self) -> None:
        """See `Sampler`."""
        if self.sampler is not None:
            self.sampler.close()

    def _own(self) -> Sampler:
        assert self.sampler is not None, "the first process has one"
        return self.sampler


class SharedRewards(Rewards):
    """Rewards whose answers are scored by all processes, those of one task by the same one: they share sandboxes and images."""

    def __init__(self, rewards: Rewards, processes: Processes) -> None:
        self._rewards, self._processes = rewards, processes

    def score(self, sampled: Sequence[Sampled]) -> list[RewardedAnswer]:
        """See `Rewards`."""
        tasks: dict[str, list[int]] = {}
        for index, answer in enumerate(sampled):
            tasks.setdefault(answer.step.trajectory.task_id, []).append(index)
        of_tasks = list(tasks.values())
        shares = share_out([Piece(len(answers)) for answers in of_tasks], self._processes.count)
        plan = [[index for task in share for index in of_tasks[task]] for share in shares]
        mine = self._rewards.score([sampled[index] for index in plan[self._processes.rank]])
        return _in_order(plan, self._processes.gather("the rewards of a batch", mine))


class FirstRewards(Rewards):
    """Rewards of the first process, which has the nodes that actions are executed on; it tells the others."""

    def __init__(self, rewards: Rewards | None, processes: Processes) -> None:
        self._rewards, self._processes = rewards, processes

    def score(self, sampled: Sequence[Sampled]) -> list[RewardedAnswer]:
        """See `Rewards`."""
        return self._processes.from_first("the rewards of a batch", lambda: self._own().score(sampled))

    def _own(self) -> Rewards:
        assert self._rewards is not None, "the first process has some"
        return self._rewards


def share_sampler(opened: Callable[[], Any], weights: PolicyWeights, processes: Processes, *, of_first: bool) -> Sampler:
    """A sampler as the processes of a run use it.

    opened: makes one of one process, on the plain model.
    of_first: whether it is the first process's, because it samples elsewhere.
    """
    if processes.count == 1:
        own: Sampler = opened()
        return own
    if not of_first:
        return SharedSampler(opened(), weights, processes)
    with weights.whole():  # engines start with them
        return FirstSampler(in_first("the engines to start", opened, processes), weights, processes)


def share_rewards(opened: Callable[[], Rewards], processes: Processes, *, of_first: bool) -> Rewards:
    """Rewards as the processes of a run use them: the first process's, or each has some and they share the work."""
    if processes.count == 1:
        return opened()
    if not of_first:
        return SharedRewards(opened(), processes)
    return FirstRewards(in_first("the rewards to be prepared", opened, processes), processes)


def in_first(what: str, opened: Callable[[], T], processes: Processes) -> T | None:
    """What the first process opens, there alone."""
    of_first: list[T] = []
    processes.from_first(what, lambda: of_first.append(opened()))
    return of_first[0] if of_first else None


def _in_order(plan: Plan, found: Sequence[Sequence[T]]) -> list[T]:
    """What each process found for its share, in the order of the whole."""
    by_index = {index: item for share, items in zip(plan, found, strict=True) for index, item in zip(share, items, strict=True)}
    return [by_index[index] for index in range(len(by_index))]
