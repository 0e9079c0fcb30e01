"""The engine that trains a batch as one tree: what samples share goes through the model once.

Invariant: the accumulated gradient is that of `SequenceEngine`, whatever the memory budget; only rounding differs.

A trunk goes first and leaves each layer's keys and values. What hangs off it (branches in chunks, then trunks below, in the
same way) reads them and adds up the gradients toward them; with their sum the trunk goes backward. A trunk that would take more
than half of the memory still free keeps no activations meanwhile, and goes forward a second time before its backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from swe_srl.training.logprobs import BackwardResult, Example, LossFn
from swe_srl.training.tree.attention import LayerPrefix, Packing, TreePass, tree_attention
from swe_srl.training.tree.head import token_logprobs
from swe_srl.training.tree.planning import Branch, Trunk, cut, plan_tree

Prefix = dict[int, LayerPrefix]
"""By layer."""


@dataclass(frozen=True, slots=True)
class TreeEngine:
    """Every batch as one tree. For a model that `families.why_not` has nothing against, see there."""

    tokens_per_microbatch: int
    """Padded tokens whose activations are held at once; a longer trunk or branch goes alone."""
    temperature: float = 1.0

    def backward(self, model: Any, examples: Sequence[Example], loss_fn: LossFn) -> BackwardResult:
        """See `Engine`."""
        root = plan_tree([e.prompt_ids for e in examples], [e.answer_ids for e in examples])
        run = _Backward(model, examples, loss_fn, self.tokens_per_microbatch, self.temperature)
        with tree_attention(model):
            run.below(root, {}, 0)
        return BackwardResult(
            loss=run.loss,
            answer_tokens=run.answer_tokens,
            forward_tokens=run.forward_tokens,
            separate_tokens=sum(map(len, examples)),
            mean_logprob=run.logprob_sum / max(1, run.answer_tokens),
        )


@dataclass(slots=True)
class _Backward:
    """One backward over one batch."""

    model: Any
    examples: Sequence[Example]
    loss_fn: LossFn
    budget: int
    temperature: float
    loss: float = 0.0
    logprob_sum: float = 0.0
    answer_tokens: int = 0
    forward_tokens: int = 0
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device

    def below(self, trunk: Trunk, prefix: Prefix, held: int) -> None:
        """Train all that hangs off a trunk whose keys and values are `prefix`, while `held` tokens' activations are kept."""
        for chunk in cut(trunk.branches, self.budget - held):
            self.train_branches(chunk, prefix)
        for child in trunk.children:
            self.train_trunk(child, prefix, held)

    def train_trunk(self, trunk: Trunk, prefix: Prefix, held: int) -> None:
        """A trunk's forward, all that hangs off it, and its backward."""
        keeps = 2 * len(trunk.ids) <= self.budget - held
        with torch.set_grad_enabled(keeps):
            recorded = self.trunk_states(trunk, prefix)
        own = {
            layer: LayerPrefix(
                torch.cat([prefix[layer].key[:, :, : trunk.start], key.detach()], 2) if trunk.start else key.detach(),
                torch.cat([prefix[layer].value[:, :, : trunk.start], value.detach()], 2) if trunk.start else value.detach(),
            )
            for layer, (key, value) in recorded.items()
        }
        self.below(trunk, own, held + len(trunk.ids) if keeps else held)
        if not keeps:
            recorded = self.trunk_states(trunk, prefix)
        states, grads = [], []
        for layer, (key, value) in recorded.items():
            for state, grad in ((key, own[layer].grad_key), (value, own[layer].grad_value)):
                if state.requires_grad:
                    states.append(state)
                    grads.append(grad[:, :, trunk.start :].to(state.dtype))
            if trunk.start:
                prefix[layer].grad_key[:, :, : trunk.start] += own[layer].grad_key[:, :, : trunk.start]
                prefix[layer].grad_value[:, :, : trunk.start] += own[layer].grad_value[:, :, : trunk.start]
        torch.autograd.backward(states, grads)

    def trunk_states(self, trunk: Trunk, prefix: Prefix) -> dict[int, tuple[Tensor, Tensor]]:
        """Each layer's keys and values of a trunk's own tokens."""
        packing = Packing([len(trunk.ids)], [trunk.start], self.device)
        tree = TreePass(packing, prefix, records=True)
        self.forward(trunk.ids, range(trunk.start, trunk.end), tree)
        return tree.recorded

    def train_branches(self, branches: Sequence[Branch], prefix: Prefix) -> None:
        """Forward, loss and backward of branches of one trunk."""
        packing = Packing([len(b.ids) for b in branches], [b.limit for b in branches], self.device)
        ids = [id for branch in branches for id in branch.ids]
        positions = [position for b in branches for position in range(b.limit, b.limit + len(b.ids))]
        hidden_S_E = self.forward(ids, positions, TreePass(packing, prefix, records=False))
        lengths = [len(branch.ids) - branch.unscored for branch in branches]
        predicting: list[int] = []
        start = 0
        for branch in branches:
            predicting += range(start + branch.unscored - 1, start + len(branch.ids) - 1)
            start += len(branch.ids)
        targets = [id for branch in branches for id in branch.ids[branch.unscored :]]
        flat_N = token_logprobs(
            self.model.get_output_embeddings(),
            hidden_S_E[torch.tensor(predicting, device=self.device)],
            torch.tensor(targets, device=self.device),
            self.temperature,
        )
        mask_B_T = torch.arange(max(lengths), device=self.device) < torch.tensor(lengths, device=self.device)[:, None]
        logprobs_B_T = torch.zeros(mask_B_T.shape, device=self.device).masked_scatter(mask_B_T, flat_N)
        advantages_B = torch.tensor([self.examples[b.example].advantage for b in branches], device=self.device)
        loss = self.loss_fn(logprobs_B_T, mask_B_T, advantages_B).sum() / len(self.examples)
        loss.backward()  # type: ignore[no-untyped-call]
        self.loss += loss.item()
        self.logprob_sum += flat_N.detach().sum().item()
        self.answer_tokens += len(targets)

    def forward(self, ids: Sequence[int], positions: Sequence[int], tree: TreePass) -> Tensor:
        """The model's last hidden states of packed tokens: hidden_S_E."""
        self.forward_tokens += len(ids)
        hidden_1_S_E: Tensor = self.model.get_decoder()(
            input_ids=torch.tensor([list(ids)], device=self.device),
            position_ids=torch.tensor([list(positions)], device=self.device),
            use_cache=False,
            tree=tree,
        ).last_hidden_state
        return hidden_1_S_E[0]
