"""Trees against separate sequences, in float32."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_trees import FAMILIES, WINDOWED, bushy_batch, distance, outcome, random_ids, tiny_model

from swe_srl.training.logprobs import Example, SequenceEngine
from swe_srl.training.tree import attention, engine
from swe_srl.training.tree.attention import LayerPrefix, Packing, TreePass
from swe_srl.training.tree.engine import TreeEngine
from swe_srl.training.tree.families import FAMILIES as SERVED

LOGPROB, GRADIENT = 2e-6, 1e-5
PLENTY, TIGHT = 100_000, 60


def check_equal(model: Any, examples: list[Example], budget: int = PLENTY) -> None:
    logprob, gradient = distance(outcome(TreeEngine(budget), model, examples), outcome(SequenceEngine(1000), model, examples))
    assert logprob <= LOGPROB
    assert gradient <= GRADIENT


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_tree_equals_separate_sequences(family: str) -> None:
    check_equal(tiny_model(family), bushy_batch(), 300)


@pytest.mark.parametrize("budget", [PLENTY, TIGHT])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_whatever_the_memory_budget(family: str, budget: int) -> None:
    check_equal(tiny_model(family), bushy_batch(), budget)


def test_every_family_that_is_served_is_tested() -> None:
    assert set(FAMILIES) | set(WINDOWED) == SERVED


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_with_tied_embeddings(family: str) -> None:
    model = tiny_model(family, tie_word_embeddings=True)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    check_equal(model, bushy_batch(1))


@pytest.mark.parametrize("heads", [1, 4])
def test_with_any_number_of_key_heads(heads: int) -> None:
    check_equal(tiny_model(num_key_value_heads=heads), bushy_batch(2))


@pytest.mark.parametrize("budget", [PLENTY, TIGHT])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_with_gradient_checkpointing(family: str, budget: int) -> None:
    model = tiny_model(family)
    expected = outcome(SequenceEngine(1000), model, bushy_batch())
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    logprob, gradient = distance(outcome(TreeEngine(budget), model, bushy_batch()), expected)
    assert logprob <= LOGPROB
    assert gradient <= GRADIENT


def test_with_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(tiny_model(), config)
    check_equal(model, bushy_batch())
    check_equal(model, bushy_batch(), TIGHT)


@pytest.mark.parametrize(
    "shape",
    {
        "one answer": [(90, 1)],
        "one prompt, several answers": [(90, 6)],
        "a prompt of one token": [(1, 3)],
        "no two prompts alike": [(90, 1), (70, 1)],
    }.items(),
    ids=lambda item: item[0],
)
def test_trees_of_few_parts(shape: tuple[str, list[tuple[int, int]]]) -> None:
    rng = random.Random(3)
    prompts = [ids for length, samples in shape[1] for ids in [random_ids(rng, length)] * samples]
    examples = [Example(prompt, random_ids(rng, rng.randint(1, 9)), rng.uniform(-2, 2)) for prompt in prompts]
    check_equal(tiny_model(), examples)
    check_equal(tiny_model(), examples, 1)


def test_at_another_temperature() -> None:
    model, examples = tiny_model(), bushy_batch()
    found, expected = outcome(TreeEngine(PLENTY, 0.7), model, examples), outcome(SequenceEngine(1000, 0.7), model, examples)
    logprob, gradient = distance(found, expected)
    assert logprob <= LOGPROB * 2
    assert gradient <= GRADIENT
    assert found.result.loss == pytest.approx(expected.result.loss, abs=1e-5)
    assert found.result.mean_logprob == pytest.approx(expected.result.mean_logprob, abs=1e-5)


def test_tokens_are_counted_as_they_go_through_the_model() -> None:
    rng = random.Random(0)
    prompt = random_ids(rng, 231)
    late = prompt[:150] + random_ids(rng, 70)
    answers = [random_ids(rng, 10) for _ in range(8)]
    examples = [Example([prompt, late][index % 2], answer, float(index)) for index, answer in enumerate(answers)]
    model = tiny_model()
    # The longer prompt is a trunk but for its last token; the other leaves it at 150, with 69 tokens of its own before
    # its last; each branch is that last token and ten of an answer.
    once = 230 + 69 + 8 * 11
    kept = outcome(TreeEngine(2 * 230), model, examples).result
    assert (kept.forward_tokens, kept.answer_tokens, kept.separate_tokens) == (once, 80, 4 * (241 + 230))
    assert outcome(TreeEngine(2 * 230 - 1), model, examples).result.forward_tokens == once + 230
    assert outcome(TreeEngine(99), model, examples).result.forward_tokens == once + 230 + 69
    assert outcome(SequenceEngine(1000), model, examples).result.separate_tokens == kept.separate_tokens


def test_no_forward_is_larger_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    forward = engine._Walk.forward

    def recording(self: Any, ids: Sequence[int], positions: Sequence[int], tree: TreePass) -> torch.Tensor:
        sizes.append(tree.packing.rows * tree.packing.longest)
        return forward(self, ids, positions, tree)

    monkeypatch.setattr(engine._Walk, "forward", recording)
    outcome(TreeEngine(300), tiny_model(), bushy_batch())
    assert max(sizes) <= 300
    assert len(sizes) > 8


def test_the_gradient_is_added_to_what_is_there() -> None:
    model, examples = tiny_model(), bushy_batch()
    once = outcome(TreeEngine(PLENTY), model, examples).gradients
    TreeEngine(PLENTY).backward(model, examples, lambda logprobs, rows: 0 * logprobs.sum(1))
    assert all(torch.equal(p.grad, once[n]) for n, p in model.named_parameters())


def test_the_model_has_its_own_attention_back() -> None:
    model, examples = tiny_model(), bushy_batch()
    outcome(TreeEngine(PLENTY), model, examples)
    assert model.config._attn_implementation == "sdpa"

    def failing(*arguments: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("in the loss")

    with pytest.raises(RuntimeError, match="in the loss"):
        TreeEngine(PLENTY).backward(model, examples, failing)
    assert model.config._attn_implementation == "sdpa"


def test_bfloat16_is_no_further_from_float32_than_separate_sequences_are() -> None:
    model, examples = tiny_model(), bushy_batch()
    expected = outcome(SequenceEngine(1000), model, examples)
    with torch.autocast("cpu", torch.bfloat16):
        separate, tree = outcome(SequenceEngine(1000), model, examples), outcome(TreeEngine(TIGHT), model, examples)
    for name in expected.gradients:
        errors = [(found.gradients[name] - expected.gradients[name]).norm().item() for found in (separate, tree)]
        assert errors[1] <= 1.5 * errors[0]
    assert distance(tree, expected)[0] > 1e-4, "it was bfloat16"


# What follows breaks the engine on purpose: the comparison above must notice.


class SeesItsNeighbours(Packing):
    """All branches in one row: each sees those before it."""

    def __init__(self, lengths: Sequence[int], limits: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths, limits, device)
        self.rows, self.longest, self.slots_S = 1, sum(lengths), None


class SeesOneTokenLess(Packing):
    """Each branch misses the last trunk token before it."""

    def __init__(self, lengths: Sequence[int], limits: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths, [max(0, limit - 1) for limit in limits], device)


class SeesTheWholeTrunk(Packing):
    """Each branch sees as much as the one that sees most."""

    def __init__(self, lengths: Sequence[int], limits: Sequence[int], device: torch.device) -> None:
        super().__init__(lengths, [max(limits)] * len(limits), device)


@pytest.mark.parametrize("broken", [SeesItsNeighbours, SeesOneTokenLess, SeesTheWholeTrunk])
def test_a_wrong_mask_is_noticed(broken: type[Packing], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "Packing", broken)
    notices(50)


def test_wrong_positions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = engine._Walk.forward

    def packed(self: Any, ids: Sequence[int], positions: Sequence[int], tree: TreePass) -> torch.Tensor:
        return forward(self, ids, range(len(ids)), tree)

    monkeypatch.setattr(engine._Walk, "forward", packed)
    notices(50)


class MergedByAutograd:
    """Both parts' attention merged by their log-sum-exp, which flash kernels give without a gradient."""

    @staticmethod
    def apply(query: Any, key: Any, value: Any, packing: Packing, prefix: LayerPrefix | None, scale: float) -> Any:
        own = attention._BranchAttention.apply(query, key, value, packing, None, scale)
        if prefix is None or not packing.groups:
            return own
        parts = []
        for limit, span in packing.groups:
            trunk_key = prefix.key[:, :, :limit].clone().requires_grad_()
            trunk_value = prefix.value[:, :, :limit].clone().requires_grad_()
            trunk_key.register_hook(prefix.grad_key[:, :, :limit].add_)
            trunk_value.register_hook(prefix.grad_value[:, :, :limit].add_)
            heads = query.shape[1] // trunk_key.shape[1]
            repeated = (x.repeat_interleave(heads, 1) for x in (trunk_key, trunk_value))
            part = torch.nn.functional.scaled_dot_product_attention(query[:, :, span], *repeated, scale=scale)
            _, part_lse, _ = attention.attention(query[:, :, span], trunk_key, trunk_value, causal=False, scale=scale)
            _, own_lse, _ = attention.attention(
                packing.pad(query), packing.pad(key), packing.pad(value), causal=True, scale=scale
            )
            own_lse = packing.unpad(own_lse.unsqueeze(-1)).squeeze(-1)[:, :, span]
            merged, _ = attention._merge(own[:, :, span], own_lse.detach(), part, part_lse.detach())
            parts.append(merged)
        covered = sum(span.stop - span.start for _, span in packing.groups)
        return torch.cat([own[:, :, : query.shape[2] - covered], *parts], 2)


def test_a_merge_by_plain_autograd_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = tiny_model(), bushy_batch()
    expected = outcome(SequenceEngine(1000), model, examples)
    real = attention._BranchAttention
    function = attention.tree_attention_forward.__globals__
    monkeypatch.setitem(function, "_BranchAttention", MergedByAutograd)
    monkeypatch.setattr(MergedByAutograd, "apply", staticmethod(_with(real, MergedByAutograd.apply)))
    logprob, gradient = distance(outcome(TreeEngine(PLENTY), model, examples), expected)
    assert logprob <= LOGPROB, "the merge itself is right"
    assert gradient > 50 * GRADIENT


def _with(real: Any, apply: Any) -> Any:
    """`apply`, with the real function underneath."""

    def run(*arguments: Any) -> Any:
        patched, attention._BranchAttention = attention._BranchAttention, real
        try:
            return apply(*arguments)
        finally:
            attention._BranchAttention = patched

    return run


def notices(times: float) -> None:
    """Log-probabilities and gradients are off by many times what is allowed."""
    model, examples = tiny_model(), bushy_batch()
    logprob, gradient = distance(outcome(TreeEngine(PLENTY), model, examples), outcome(SequenceEngine(1000), model, examples))
    assert logprob > times * LOGPROB
    assert gradient > times * GRADIENT
