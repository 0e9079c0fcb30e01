"""Sliding windows and sinks: which keys a token sees, FlexAttention's blocks of them, and whole models."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_trees import WINDOWED, bushy_batch, distance, outcome, windowed_model
from torch.nn.attention.flex_attention import create_block_mask, create_mask, flex_attention

from swe_srl.training.logprobs import SequenceEngine
from swe_srl.training.tree import attention, windows
from swe_srl.training.tree.attention import Packing
from swe_srl.training.tree.engine import TreeEngine
from swe_srl.training.tree.windows import Spans, block_mask, dense_attention

CPU = torch.device("cpu")
LOGPROB, GRADIENT = 2e-6, 1e-5


def by_the_book(lengths: list[int], limits: list[int], window: int | None) -> list[list[tuple[str, int]]]:
    """What each packed token sees: ("prefix", position) and ("own", packed index)."""
    seen, start = [], 0
    for length, limit in zip(lengths, limits, strict=True):
        for offset in range(length):
            position = limit + offset
            near = range(max(0, position - (window or position + 1) + 1), position + 1)
            seen.append([("prefix", at) if at < limit else ("own", start + at - limit) for at in near])
        start += length
    return seen


branches = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=6)


@given(branches, st.none() | st.integers(1, 30))
def test_a_token_sees_its_window(branches: list[tuple[int, int]], window: int | None) -> None:
    lengths, limits = [length for length, _ in branches], [limit for _, limit in branches]
    spans = Spans(Packing(lengths, limits, CPU), window)
    keys = [("prefix", at) for at in range(spans.first, spans.end)] + [("own", at) for at in range(sum(lengths))]
    assert spans.keys == len(keys)
    found = [[key for key, visible in zip(keys, row, strict=True) if visible] for row in spans.dense().tolist()]
    assert found == by_the_book(lengths, limits, window)


def test_only_what_is_seen_of_the_prefix_is_read() -> None:
    spans = Spans(Packing([3, 2], [700, 900], CPU), 128)
    assert (spans.first, spans.end, spans.keys) == (700 - 127, 900, 900 - 573 + 5)


LAYOUTS = {
    "one trunk": ([700], [0]),
    "a trunk on a trunk": ([300], [500]),
    "branches": ([130, 90, 1, 64, 128, 200], [100, 100, 256, 300, 384, 700]),
    "within a block": ([5, 3], [0, 9]),
}


@pytest.mark.parametrize("window", [None, 1, 100, 128, 300])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_blocks_are_those_of_looking_at_every_pair(
    layout: str, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_BLOCKS_AT_ONCE", 2)
    spans = Spans(Packing(*LAYOUTS[layout], CPU), window)
    size = (sum(LAYOUTS[layout][0]), spans.keys)

    def visible(batch: Any, head: Any, token: Any, key: Any) -> Any:
        return spans.visible(token, key)

    found, expected = block_mask(spans), create_block_mask(visible, None, None, *size, device="cpu")
    assert found.shape == expected.shape
    assert torch.equal(found.to_dense(), expected.to_dense())
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("kv_indices", "full_kv_indices"):
        counts = getattr(found, name.replace("indices", "num_blocks"))[0, 0]
        for row, count in enumerate(counts):
            assert torch.equal(getattr(found, name)[0, 0, row, :count], getattr(expected, name)[0, 0, row, :count])
    assert torch.equal(create_mask(found.mask_mod, None, None, *size, device="cpu")[0, 0], spans.dense())


def test_flex_attention_under_the_block_mask_is_dense_attention() -> None:
    spans = Spans(Packing(*LAYOUTS["branches"], CPU), 150)
    torch.manual_seed(0)
    query = torch.randn(1, 4, sum(LAYOUTS["branches"][0]), 16)
    key, value = torch.randn(2, 1, 2, spans.keys, 16)
    found = flex_attention(query, key, value, block_mask=block_mask(spans), scale=0.3, enable_gqa=True)
    torch.testing.assert_close(found.transpose(1, 2), dense_attention(query, key, value, spans.dense(), 0.3))


@pytest.mark.parametrize("budget", [300, 60])
@pytest.mark.parametrize("family", sorted(WINDOWED))
def test_a_tree_equals_separate_sequences(family: str, budget: int) -> None:
    model, examples = windowed_model(family), bushy_batch()
    logprob, gradient = distance(outcome(TreeEngine(budget), model, examples), outcome(SequenceEngine(1000), model, examples))
    assert logprob <= LOGPROB
    assert gradient <= GRADIENT


def test_with_gradient_checkpointing() -> None:
    model, examples = windowed_model("gpt_oss"), bushy_batch()
    expected = outcome(SequenceEngine(1000), model, examples)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    logprob, gradient = distance(outcome(TreeEngine(300), model, examples), expected)
    assert logprob <= LOGPROB
    assert gradient <= GRADIENT


def test_through_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of CUDA, with FlexAttention's unfused form in place of its kernels and its refusal of CPU gradients lifted."""
    from torch.nn.attention import flex_attention as flex
    from transformers.integrations import flex_attention as integration

    model, examples = windowed_model("mistral"), bushy_batch()
    expected = outcome(SequenceEngine(1000), model, examples)
    calls = []

    def unfused(query: Any, key: Any, value: Any, training: bool = False, **options: Any) -> Any:
        calls.append(options["block_mask"])
        return flex.flex_attention(query, key, value, **options)

    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)
    monkeypatch.setattr(integration, "compile_friendly_flex_attention", unfused)
    monkeypatch.setattr(windows, "flex_serves", lambda device: True)
    logprob, gradient = distance(outcome(TreeEngine(300), model, examples), expected)
    assert calls
    assert logprob <= LOGPROB
    assert gradient <= GRADIENT


class OneTokenMore(Spans):
    def __init__(self, packing: Packing, window: int | None) -> None:
        super().__init__(packing, window and window + 1)


def test_a_window_of_one_token_more_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = windowed_model("mistral"), bushy_batch()
    monkeypatch.setattr(windows, "Spans", OneTokenMore)
    logprob, gradient = distance(outcome(TreeEngine(300), model, examples), outcome(SequenceEngine(1000), model, examples))
    assert logprob > 50 * LOGPROB
    assert gradient > 50 * GRADIENT


def test_sinks_left_out_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = windowed_model("gpt_oss"), bushy_batch()
    real = attention.windowed_attention
    monkeypatch.setattr(attention, "windowed_attention", lambda *arguments: real(*arguments[:-1], None))
    found, expected = outcome(TreeEngine(300), model, examples), outcome(SequenceEngine(1000), model, examples)
    assert not any("sinks" in name for name in found.gradients)
    assert max((found.logprobs[key] - expected.logprobs[key]).abs().max() for key in expected.logprobs) > 50 * LOGPROB
