"""Packed branches against dense attention under a mask, and the parts against autograd, in float64."""

import pytest
import torch
from torch import Tensor

from swe_srl.training.tree import kernels
from swe_srl.training.tree.attention import LayerPrefix, Packing, _BranchAttention, tree_attention_forward
from swe_srl.training.tree.kernels import attention, attention_backward

SCALE = 0.7
CPU = torch.device("cpu")


def random(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(query: Tensor, key: Tensor, value: Tensor, mask_S_P: Tensor) -> Tensor:
    """Softmax attention where the mask is true, by the book."""
    heads = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(heads, 1), value.repeat_interleave(heads, 1)
    scores = (query @ key.transpose(-1, -2) * SCALE).masked_fill(~mask_S_P, float("-inf"))
    return scores.softmax(-1) @ value


def branch_mask(lengths: list[int], limits: list[int], prefix: int) -> Tensor:
    """Who sees whom: the first `limit` tokens of the prefix, and its own branch up to itself."""
    mask = torch.zeros(sum(lengths), prefix + sum(lengths), dtype=torch.bool)
    start = 0
    for length, limit in zip(lengths, limits, strict=True):
        for offset in range(length):
            mask[start + offset, :limit] = True
            mask[start + offset, prefix + start : prefix + start + offset + 1] = True
        start += length
    return mask


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("lengths", "limits"),
    [([4, 4], [9, 9]), ([1, 5, 3], [0, 3, 9]), ([7], [9]), ([2, 300, 1], [5, 5, 6]), ([3, 2], [0, 0])],
)
def test_branches_see_their_part_of_the_trunk_and_themselves(
    lengths: list[int], limits: list[int], plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setattr(kernels, "_flash_serves", lambda query, value: False)
    S, P = sum(lengths), 9
    query, grad = random(1, 4, S, 8, seed=0), random(1, 4, S, 8, seed=1)
    key, value = random(1, 2, P + S, 8, seed=2), random(1, 2, P + S, 8, seed=3)
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    expected = dense(*inputs, branch_mask(lengths, limits, P))
    expected.backward(grad)
    prefix = LayerPrefix(key[:, :, :P], value[:, :, :P])
    own = [x.clone().requires_grad_() for x in (query, key[:, :, P:], value[:, :, P:])]
    output = _BranchAttention.apply(*own, Packing(lengths, limits, CPU), prefix, SCALE)
    output.backward(grad)
    close = {"atol": 1e-12, "rtol": 1e-12}
    torch.testing.assert_close(output, expected, **close)
    torch.testing.assert_close(own[0].grad, inputs[0].grad, **close)
    for index, trunk in ((1, prefix.grad_key), (2, prefix.grad_value)):
        found = torch.cat([trunk, own[index].grad], 2)
        torch.testing.assert_close(found, inputs[index].grad, **close)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_one_part_alone_is_attention(causal: bool, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(kernels, "_flash_serves", lambda query, value: False)
    inputs = [random(2, heads, 300, 8, seed=heads).requires_grad_() for heads in (4, 2, 2)]
    mask = torch.ones(300, 300, dtype=torch.bool)
    expected = dense(*inputs, mask.tril() if causal else mask)
    grad = random(2, 4, 300, 8, seed=9)
    expected.backward(grad)
    query, key, value = (x.detach() for x in inputs)
    output, lse, saved = attention(query, key, value, causal=causal, scale=SCALE)
    gradients = attention_backward(grad, query, key, value, output, lse, saved, causal=causal, scale=SCALE)
    torch.testing.assert_close(output, expected)
    for found, x in zip(gradients, inputs, strict=True):
        torch.testing.assert_close(found, x.grad, atol=1e-11, rtol=1e-9)


def test_gradients_to_a_trunk_add_up_in_float32() -> None:
    # Each pass adds the same small gradient: bfloat16, with 8 bits, would stop moving after 2^8 of them.
    query, key, value, grad = (random(1, 2, 5, 8, seed=seed, dtype=torch.bfloat16) for seed in range(4))
    prefix = LayerPrefix(*(random(1, 2, 9, 8, seed=seed, dtype=torch.bfloat16) for seed in (4, 5)))
    packing, passes = Packing([5], [9], CPU), 1000
    first = None
    for _ in range(passes):
        own = query.clone().requires_grad_()
        _BranchAttention.apply(own, key, value, packing, prefix, SCALE).backward(grad)
        first = prefix.grad_value.clone() if first is None else first
    assert prefix.grad_value.dtype == torch.float32
    torch.testing.assert_close(prefix.grad_value, first * passes, rtol=1e-4, atol=1e-3)


def test_padding_and_back() -> None:
    packing = Packing([2, 1, 3], [0, 4, 4], CPU)
    x = torch.arange(1.0, 7).view(1, 1, 6, 1)
    assert packing.pad(x)[:, 0, :, 0].tolist() == [[1, 2, 0], [3, 0, 0], [4, 5, 6]]
    assert torch.equal(packing.unpad(packing.pad(x)), x)
    assert packing.groups == [(4, slice(2, 6))]


@pytest.mark.parametrize("option", [{"softcap": 30.0}, {"position_bias": torch.zeros(2)}, {"dropout": 0.1}])
def test_other_kinds_of_attention_are_refused(option: dict[str, object]) -> None:
    x = random(1, 2, 3, 8, seed=0)
    with pytest.raises(NotImplementedError, match=next(iter(option))):
        tree_attention_forward(None, x, x, x, None, tree=object(), **option)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="outside a tree pass"):
        tree_attention_forward(None, x, x, x, None)
