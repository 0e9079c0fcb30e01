"""What engines carry from examples to losses and back, tree and separate sequences alike."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_trees import bushy_batch, tiny_model

from swe_srl.training.logprobs import Engine, Example, Rows, SequenceEngine, rows_of, sequence_logprobs
from swe_srl.training.tree.engine import TreeEngine

ENGINES = [TreeEngine(100_000), TreeEngine(60), SequenceEngine(1000)]


def shuffled_batch() -> list[Example]:
    examples = bushy_batch()[::2]
    random.Random(1).shuffle(examples)
    return examples


def zero(logprobs_B_T: torch.Tensor, rows: Rows) -> torch.Tensor:
    return 0 * logprobs_B_T.sum(1)


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_log_probabilities_come_back_in_the_order_of_the_examples(engine: Engine) -> None:
    model, examples = tiny_model(), shuffled_batch()
    with torch.no_grad():
        alone = [sequence_logprobs(model, [e.prompt_ids], [e.answer_ids])[0][0] for e in examples]
    for found in (engine.logprobs(model, examples), engine.backward(model, examples, zero).logprobs):
        for row, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(torch.tensor(row), expected, atol=4e-6, rtol=0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_without_gradient_they_are_the_same_to_the_bit(engine: Engine, checkpointing: bool, half: bool) -> None:
    # What mini-batches rely on: before the first update old and new policy are one.
    model, examples = tiny_model(), shuffled_batch()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        old = engine.logprobs(model, examples)
        new = engine.backward(model, examples, zero).logprobs
    assert [list(row) for row in old] == [list(row) for row in new]
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_each_row_of_a_loss_has_what_its_example_has(engine: Engine) -> None:
    model, rng = tiny_model(), random.Random(2)

    def numbers(example: Example) -> list[float]:
        return [-rng.randrange(1, 1000) / 128 for _ in example.answer_ids]

    examples = shuffled_batch()
    examples = [
        replace(e, sampler_logprobs=numbers(e), old_logprobs=numbers(e), reference_logprobs=numbers(e)) for e in examples
    ]
    seen: dict[float, list[Any]] = {}

    def loss_fn(logprobs_B_T: torch.Tensor, rows: Rows) -> torch.Tensor:
        extra = [rows.sampler_B_T, rows.old_B_T, rows.reference_B_T]
        assert all(values is not None and not values[~rows.mask_B_T].any() for values in extra)
        for row, advantage in enumerate(rows.advantages_B.tolist()):
            mask = rows.mask_B_T[row]
            seen[advantage] = [values[row][mask].tolist() for values in extra if values is not None]
        return zero(logprobs_B_T, rows)

    engine.backward(model, examples, loss_fn)
    assert seen == {
        torch.tensor(e.advantage).item(): [e.sampler_logprobs, e.old_logprobs, e.reference_logprobs] for e in examples
    }


def test_what_no_example_has_is_none_and_what_some_lack_is_refused() -> None:
    bare, full = Example([1], [2, 3]), Example([1], [4], old_logprobs=[-1.0])
    rows = rows_of([bare, bare], torch.device("cpu"))
    assert (rows.sampler_B_T, rows.old_B_T, rows.reference_B_T) == (None, None, None)
    with pytest.raises(ValueError, match="some examples of a batch have log-probabilities that others lack"):
        rows_of([bare, full], torch.device("cpu"))
    with pytest.raises(ValueError, match="2 answer tokens have 1 log-probabilities"):
        Example([1], [2, 3], sampler_logprobs=[-1.0])
