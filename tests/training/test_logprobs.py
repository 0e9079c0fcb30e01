import random

import pytest
import torch
from transformers import LlamaForCausalLM

from swe_srl.training.logprobs import Example, Rows, SequenceEngine, microbatches, sequence_logprobs
from swe_srl.training.losses import grpo_loss, sft_loss


def random_examples(count: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [rng.randrange(256) for _ in range(length)]

    return [Example(ids(rng.randint(1, 30)), ids(rng.randint(1, 12)), rng.uniform(-2, 2)) for _ in range(count)]


def test_equal_to_each_sequence_alone_with_all_its_logits(model: LlamaForCausalLM) -> None:
    examples = random_examples(7)
    with torch.no_grad():
        logprobs, mask = sequence_logprobs(model, [e.prompt_ids for e in examples], [e.answer_ids for e in examples], 0.7)
        for row, example in enumerate(examples):
            logits = model(torch.tensor([[*example.prompt_ids, *example.answer_ids]])).logits[0].float() / 0.7
            start = len(example.prompt_ids) - 1
            alone = torch.log_softmax(logits, -1)[range(start, start + len(example.answer_ids)), list(example.answer_ids)]
            torch.testing.assert_close(logprobs[row][mask[row]], alone, atol=1e-5, rtol=0)
    assert mask.sum(1).tolist() == [len(example.answer_ids) for example in examples]
    assert logprobs[~mask].abs().sum() == 0


def gradient(model: LlamaForCausalLM) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize("objective", ["sft", "srl"])
def test_microbatches_give_the_gradient_of_one_big_batch(model: LlamaForCausalLM, objective: str) -> None:
    examples = random_examples(9)

    def loss_fn(logprobs: torch.Tensor, rows: Rows) -> torch.Tensor:
        if objective == "sft":
            return sft_loss(logprobs, rows.mask_B_T)
        return grpo_loss(logprobs, logprobs.detach() - 0.1, rows.mask_B_T, rows.advantages_B, clip_low=0.2, clip_high=0.2)

    results, gradients = [], []
    for budget in (100_000, 60, 1):
        model.zero_grad()
        results.append(SequenceEngine(budget).backward(model, examples, loss_fn))
        gradients.append(gradient(model))
    big, small, single = results
    assert gradients[0].norm() > 0.1
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-6, rtol=1e-4)
    assert small.loss == pytest.approx(big.loss, abs=1e-6)
    assert single.mean_logprob == pytest.approx(big.mean_logprob, abs=1e-6)
    assert big.answer_tokens == small.answer_tokens == sum(len(example.answer_ids) for example in examples)
    assert single.forward_tokens == sum(map(len, examples)) < big.forward_tokens == 9 * max(map(len, examples))


def test_the_engine_adds_up_the_mean_over_examples(model: LlamaForCausalLM) -> None:
    examples = random_examples(3)
    result = SequenceEngine(10_000).backward(model, examples, lambda logprobs, rows: sft_loss(logprobs, rows.mask_B_T))
    with torch.no_grad():
        losses = [-sequence_logprobs(model, [e.prompt_ids], [e.answer_ids])[0].mean().item() for e in examples]
    assert result.loss == pytest.approx(sum(losses) / 3, abs=1e-5)


def test_a_microbatch_keeps_within_its_padded_budget() -> None:
    examples = random_examples(40, seed=3)
    chunks = [[examples[i] for i in chunk] for chunk in microbatches(examples, 80)]
    assert sorted(map(id, (e for chunk in chunks for e in chunk))) == sorted(map(id, examples))
    assert all(len(chunk) * max(map(len, chunk)) <= 80 for chunk in chunks)
    assert max(map(len, chunks)) > 1
    assert [len(chunk) for chunk in microbatches(examples, 1)] == [1] * 40


def test_an_example_has_a_prompt_and_an_answer() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Example([1], [])
    with pytest.raises(ValueError, match="at least one"):
        Example([], [1])
