"""The first batch's proof, with engines that are right and engines that are not."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_trees import bushy_batch, outcome, tiny_model

from swe_srl.errors import UserError
from swe_srl.training.logprobs import BackwardResult, Example, LossFn
from swe_srl.training.losses import sft_loss
from swe_srl.training.tree import engine
from swe_srl.training.tree.attention import Packing
from swe_srl.training.tree.check import CheckedTreeEngine, check_tree, slice_of
from swe_srl.training.tree.engine import TreeEngine
from swe_srl.training.tree.planning import plan_tree


def test_a_model_that_agrees_trains_as_unchecked_and_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = tiny_model(), bushy_batch()
    expected = outcome(TreeEngine(1000), model, examples)
    checked = CheckedTreeEngine(TreeEngine(1000))
    for _ in range(2):
        found = outcome(checked, model, examples)
        assert found.result == expected.result
        assert all(torch.equal(found.gradients[name], expected.gradients[name]) for name in expected.gradients)
    agreement = checked.agreement
    assert agreement is not None
    assert 0 < agreement.logprob < 2e-6
    assert 0 < agreement.gradient < 1e-5


def test_gradients_stay_as_they_were() -> None:
    model, examples = tiny_model(), bushy_batch()
    gradients = outcome(TreeEngine(1000), model, examples).gradients
    check_tree(TreeEngine(1000), model, examples, 1.0)
    assert all(torch.equal(parameter.grad, gradients[name]) for name, parameter in model.named_parameters())


class OffByATenth:
    """Right log-probabilities, gradients a tenth too long."""

    def logprobs(self, model: Any, examples: Sequence[Example]) -> list[Sequence[float]]:
        return TreeEngine(1000).logprobs(model, examples)

    def backward(self, model: Any, examples: Sequence[Example], loss_fn: LossFn) -> BackwardResult:
        return TreeEngine(1000).backward(model, examples, lambda *arguments: 1.1 * loss_fn(*arguments))


def test_wrong_gradients_stop_the_run() -> None:
    with pytest.raises(UserError, match=r"log-probabilities differ by .*e-0[67].* gradients by 0\.1 .* engine = \"separate\""):
        check_tree(OffByATenth(), tiny_model(), bushy_batch(), 1.0)


class SeesItsNeighbours(Packing):
    def __init__(self, lengths: Sequence[int], limits: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths, limits, device)
        self.rows, self.longest, self.slots_S = 1, sum(lengths), None


@pytest.mark.parametrize("half", [False, True])
def test_a_wrong_mask_stops_the_run_in_any_arithmetic(half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = tiny_model(), bushy_batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert check_tree(TreeEngine(1000), model, examples, 1.0).gradient > (1e-4 if half else 0)
        monkeypatch.setattr(engine, "Packing", SeesItsNeighbours)
        checked = CheckedTreeEngine(TreeEngine(1000))
        with pytest.raises(UserError, match="does not compute the same"):
            checked.backward(model, examples, lambda logprobs, rows: sft_loss(logprobs, rows.mask_B_T))


def test_activations_that_are_not_kept_for_a_trunk_stop_the_run() -> None:
    # The reentrant kind of checkpointing runs layers without gradient: a trunk's keys would have none to give.
    model = tiny_model()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model.enable_input_require_grads()
    with pytest.raises(UserError, match="does not compute the same"):
        check_tree(TreeEngine(1000), model, bushy_batch(), 1.0)


@pytest.mark.parametrize("examples", [bushy_batch(), [Example([1], [2])], [Example(range(5000), range(300))]])
def test_the_slice_is_a_small_tree_whatever_the_batch(examples: list[Example]) -> None:
    sliced = slice_of(examples)
    assert sum(map(len, sliced)) < 700
    assert len(sliced) == 5
    (trunk,) = plan_tree([e.prompt_ids for e in sliced], [e.answer_ids for e in sliced]).children
    assert len({branch.limit for branch in trunk.branches}) >= 3
