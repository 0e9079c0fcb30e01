"""One model over several processes by FSDP2, and engines that keep them in step.

Invariant: each process works on examples of its own, as many or few as it has; together their gradients are those of one
process with all the examples.

Sharded weights are put together by collectives inside every forward and backward, so all processes must go through the same
passes in the same order. Before each pass they agree on what kind comes next; whoever has another kind to do, or none left,
goes along with a pass of one token that leaves no gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from swe_srl.training.tree.attention import Packing, TreePass

T = TypeVar("T")


class Pass(IntEnum):
    """What a process is about to do; where they differ, the highest goes first."""

    NONE = 0
    """Nothing any more: its examples are done."""
    BACKWARD = 1
    """A forward, and its backward before the next pass."""
    FORWARD = 2
    """A forward without gradient."""


class ShardedModel(nn.Module):
    """The FSDP root: weights are whole inside its forward alone, so what needs them is called there."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, compute: Callable[[Any], T]) -> T:
        """What `compute` makes of the model."""
        return compute(self.model)

    def go_along(self, mine: Pass) -> None:
        """Return when this process's next pass is everyone's turn; take part in the others' passes until then."""
        while (turn := self._agree(mine)) is not mine:
            with torch.set_grad_enabled(turn is Pass.BACKWARD):
                nothing = self(_one_token)
            if turn is Pass.BACKWARD:
                nothing.backward()

    def _agree(self, mine: Pass) -> Pass:
        turn = torch.tensor(int(mine), device=next(self.parameters()).device)
        dist.all_reduce(turn, op=dist.ReduceOp.MAX)
        return Pass(int(turn))


def shard(model: Any, mesh: Any) -> ShardedModel:
    """Spread a transformers model's weights over the processes of a device mesh, layer by layer, in place."""
    from torch.distributed.fsdp import fully_shard

    root = ShardedModel(model)
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(root, mesh=mesh)
    return root


def whole(model: Any) -> Any:
    """The transformers model, sharded or not: for its settings and its device, not to be called."""
    return model.model if isinstance(model, ShardedModel) else model


def pass_through(model: Any, compute: Callable[[Any], T]) -> T:
    """What `compute` makes of a model, sharded or not, in one pass; with gradients enabled its backward must come next."""
    if not isinstance(model, ShardedModel):
        return compute(model)
    model.go_along(Pass.BACKWARD if torch.is_grad_enabled() else Pass.FORWARD)
    result: T = model(compute)
    return result


def done(model: Any) -> None:
    """Say that this process has no more passes; returns when none has."""
    if isinstance(model, ShardedModel):
        model.go_along(Pass.NONE)


def nothing_of(model: Any, hidden: Tensor) -> Tensor:
    """Zero, as a function of the last hidden states and the head.

    A pass that scores nothing returns it and sends a gradient of zero through it: the last layer's keys and values alone would
    not have FSDP put that layer's weights together, and every process has to reduce gradients of the same weights.
    """
    head: Tensor = model.get_output_embeddings().weight
    return hidden.sum() * 0 + head.flatten()[:1].sum() * 0


def share_of_batch(examples: int) -> float:
    """What a process's mean loss counts, so that FSDP's mean over processes is the mean over all examples of all of them."""
    count = torch.tensor(examples)
    dist.all_reduce(count)
    return dist.get_world_size() * examples / int(count)


def _one_token(model: Any) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    # Inside a tree engine the model computes tree passes alone; otherwise its attention does not look at this.
    tree = TreePass(Packing([1], [0], device), {}, records=False)
    hidden: Tensor = model.get_decoder()(input_ids=ids, position_ids=ids, use_cache=False, tree=tree).last_hidden_state
    return nothing_of(model, hidden)
