"""One model over several processes by FSDP2, and engines that keep them in step.

Invariant: each process works on examples of its own, as many or few as it has; together their gradients are those of one
process with all the examples.

Sharded weights are put together by collectives inside every forward and backward, so all processes must go through the same
passes in the same order. Before each pass they agree on what kind comes next; whoever has another kind to do, or none left,
goes along with a pass of one token that leaves no gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from swe_srl.errors import UserError
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
        # A weight's cast that an earlier pass made would get its gradient at the end of this backward, after FSDP has reduced
        # the layer's: it would count in a later pass, that of the last one in the next update.
        torch.clear_autocast_cache()
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
    """Spread a transformers model's weights over the processes of a device mesh, layer by layer, in place.

    Raises UserError for a model whose layers are not where transformers' causal models have them.
    """
    from torch.distributed.fsdp import fully_shard

    layers = getattr(model.get_decoder(), "layers", None)
    if layers is None:
        raise UserError(f'model.weights = "sharded" does not know the layers of a {model.config.model_type}; use "replicated"')
    root = ShardedModel(model)
    for layer in layers:
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


@dataclass(frozen=True, slots=True)
class PolicyWeights:
    """The policy twice: as the engines train it, and as all else (sampling, saving, loading) sees it, a plain model.

    Where weights are not sharded the two are one. Otherwise the plain model has its weights inside `whole` alone, whole in each
    process; all processes must go in.
    """

    trained: Any
    """A transformers (or peft) model, or a `ShardedModel` of one."""
    plain: Any
    mesh: Any | None = None
    """The device mesh that the weights are spread over."""

    @classmethod
    def of(cls, model: Any, mesh: Any | None = None) -> PolicyWeights:
        """Of a model, which is spread over the mesh if there is one."""
        if mesh is None:
            return cls(model, model)
        memo: dict[int, Any] = {
            id(weight): nn.Parameter(_none_of(weight), weight.requires_grad) for weight in model.parameters()
        }
        plain = copy.deepcopy(model, memo)
        return cls(shard(model, mesh), plain, mesh)

    @contextmanager
    def whole(self, *, replaced: bool = False, in_first: bool = False) -> Iterator[Any]:
        """The plain model with the present weights.

        replaced: those it has at the end become the policy's.
        in_first: to be read in the first process alone, which has sharded ones in its host memory: devices hold one at a time.
        """
        if self.trained is self.plain:
            yield self.plain
            return
        self.trained.reshard()  # a pass without gradient leaves the root's own weights together
        pairs = list(zip(self.plain.parameters(), self.trained.parameters(), strict=True))
        for weight, sharded in pairs:
            together = full(sharded.detach())
            if in_first:
                together = together.cpu() if dist.get_rank() == 0 else _none_of(together)
            weight.data = together
        try:
            yield self.plain
            if replaced:
                for weight, sharded in pairs:
                    sharded.detach().copy_(_spread(weight.detach(), sharded))
        finally:
            for weight, sharded in pairs:
                weight.data = _none_of(sharded)


def full(tensor: Tensor) -> Tensor:
    """A tensor put together from all processes, where it is sharded; all of them must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """An optimizer's state with whole tensors, on the CPU where they were sharded; only where `keep` is true of any use."""

    def whole_of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: whole_of(inner) for key, inner in value.items()}
        if not isinstance(value, DTensor):
            return value
        together = value.full_tensor()
        return together.cpu() if keep else None

    found: dict[str, Any] = whole_of(optimizer.state_dict())
    return found


def load_full_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Put an optimizer's whole state (`full_state`, of however many processes) back, sharded as its parameters are."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]

    def as_weight(value: Any, weight: Tensor) -> Any:
        sharded = isinstance(weight, DTensor) and isinstance(value, Tensor) and value.shape == weight.shape
        return _spread(value, weight) if sharded else value

    spread = {
        index: {key: as_weight(value, weights[index]) for key, value in of_weight.items()}
        for index, of_weight in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": spread})


def _spread(tensor: Tensor, like: Any) -> DTensor:
    """This process's share of a tensor that all processes have whole."""
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _none_of(tensor: Tensor) -> Tensor:
    return torch.empty(0, dtype=tensor.dtype, device=tensor.device)


def _one_token(model: Any) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.zeros(1, 1, dtype=torch.long, device=device)
    # Inside a tree engine the model computes tree passes alone; otherwise its attention does not look at this.
    tree = TreePass(Packing([1], [0], device), {}, records=False)
    hidden: Tensor = model.get_decoder()(input_ids=ids, position_ids=ids, use_cache=False, tree=tree).last_hidden_state
    return nothing_of(model, hidden)
