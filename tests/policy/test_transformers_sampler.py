from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers import transformers as module
from swe_srl.policy.samplers.decoding import ExpandedDecoder, PackedDecoder, packs_exactly
from swe_srl.policy.samplers.transformers import TransformersSampler, batches, draw

GENERATOR = torch.Generator().manual_seed(3)
SHARED = torch.randint(4, 400, (40,), generator=GENERATOR).tolist()
# Two share a prefix (computed once), one does not, one is too short to share.
PROMPTS = [
    [*SHARED, 11, 12, 13],
    [7, 8, 9, 10, 11],
    [*SHARED[:30], 50],
    torch.randint(4, 400, (60,), generator=GENERATOR).tolist(),
]


def sampler(model: Any, tokenizer: Any, **options: Any) -> TransformersSampler:
    return TransformersSampler(model, tokenizer, **options)


def plain_logits(model: Any, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """Logits of each of `ids` by one forward pass over everything."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0]
    return logits[len(prompt) - 1 : -1]


def flat(groups: list[list[Sample]]) -> list[tuple[int, ...]]:
    return [sample.token_ids for group in groups for sample in group]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_separate_forward_pass(model: Any, tokenizer: Any, packed: bool, temperature: float) -> None:
    options = SamplingOptions(n=3, temperature=temperature, max_tokens=20, stop=("e", "1"), seed=5)
    groups = sampler(model, tokenizer, packed=packed).sample(PROMPTS, options)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    assert len(set(flat(groups))) == 12
    assert len({len(ids) for ids in flat(groups)}) > 1, "some samples must end before others for this test to say anything"
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for sample in group:
            logits = plain_logits(model, prompt, list(sample.token_ids)) / temperature
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            assert torch.tensor(sample.logprobs).sub(expected).abs().max() < 1e-5


def test_a_call_may_be_shared_out_by_prompts(model: Any, tokenizer: Any) -> None:
    options = SamplingOptions(n=3, max_tokens=20, seed=5)
    whole = flat(sampler(model, tokenizer).sample(PROMPTS, options))
    parts = [sampler(model, tokenizer).sample([PROMPTS[i] for i in p], options, p) for p in ([0, 3], [1, 2], [])]
    assert [flat(part) for part in parts] == [whole[:3] + whole[9:], whole[3:9], []]


@pytest.mark.parametrize("packed", [True, False])
def test_greedy_is_what_generate_does(model: Any, tokenizer: Any, packed: bool) -> None:
    groups = sampler(model, tokenizer, packed=packed).sample(PROMPTS, SamplingOptions(temperature=0, max_tokens=24))
    for prompt, [sample] in zip(PROMPTS, groups, strict=True):
        out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=24, eos_token_id=[0, 2])[0, len(prompt) :]
        assert list(sample.token_ids) == out.tolist()
        expected = plain_logits(model, prompt, out.tolist()).log_softmax(-1).amax(-1)
        assert torch.tensor(sample.logprobs).sub(expected).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_both_decoders_draw_the_same_samples(tiny: Callable[..., Any], tokenizer: Any, family: str) -> None:
    model = tiny(family, **({"sliding_window": None} if family == "mistral" else {}))
    assert packs_exactly(model, PROMPTS[0])
    options = SamplingOptions(n=4, max_tokens=16, seed=1)
    drawn = [sampler(model, tokenizer, packed=packed).sample(PROMPTS, options) for packed in (True, False)]
    assert flat(drawn[0]) == flat(drawn[1])


def test_a_sample_does_not_depend_on_its_batch(model: Any, tokenizer: Any) -> None:
    options = SamplingOptions(n=3, max_tokens=16, seed=2)
    together = sampler(model, tokenizer).sample(PROMPTS, options)
    one_by_one = sampler(model, tokenizer, batch_tokens=1).sample(PROMPTS, options)
    assert flat(together) == flat(one_by_one)
    assert flat(together) != flat(sampler(model, tokenizer).sample(PROMPTS, SamplingOptions(n=3, max_tokens=16, seed=3)))


def test_batches_are_longest_first_and_within_the_budget(model: Any, tokenizer: Any) -> None:
    found = batches(PROMPTS, SamplingOptions(n=2, max_tokens=5), 120)
    assert found == [[3], [0, 2, 1]]


def test_a_shared_prefix_is_computed_once(model: Any) -> None:
    with torch.no_grad():
        decoder = PackedDecoder(model, PROMPTS, 1, 1)
        seen: list[int] = []
        inner = decoder._forward
        decoder._forward = lambda ids, positions, **k: (seen.append(len(ids)), inner(ids, positions, **k))[1]  # type: ignore[method-assign]
        logits = decoder.prefill()
    assert seen == [43, 5, 1, 60]
    expected = torch.stack([plain_logits(model, p, [0])[0] for p in PROMPTS])
    assert (logits - expected).abs().max() < 1e-5


def test_a_stop_string_ends_the_sample_at_the_token_that_completes_it(model: Any, tokenizer: Any) -> None:
    base = SamplingOptions(n=2, max_tokens=40, seed=0)
    free = sampler(model, tokenizer)
    free._ends = frozenset()
    whole = free.sample(PROMPTS[:1], base)[0][0]
    # Any three characters in the middle will do as a stop string, if the decoded text holds them only once.
    text = whole.text
    stop = next(
        text[i : i + 3] for i in range(20, len(text)) if text.count(text[i : i + 3]) == 1 and "�" not in text[i : i + 3]
    )
    cut = free.sample(PROMPTS[:1], SamplingOptions(n=2, max_tokens=40, seed=0, stop=("no such text", stop)))[0][0]
    assert cut.finish == "stop"
    assert cut.text == text[: text.index(stop) + 3]
    count = len(cut.token_ids)
    assert (cut.token_ids, cut.logprobs) == (whole.token_ids[:count], pytest.approx(whole.logprobs[:count], abs=1e-5))
    assert stop in tokenizer.decode(cut.token_ids, skip_special_tokens=True)
    assert stop not in tokenizer.decode(cut.token_ids[:-1], skip_special_tokens=True)


class Script:
    """A decoder that makes every sample say the given ids."""

    def __init__(self, ids: list[int]) -> None:
        self.ids, self.t = ids, 0

    def prefill(self) -> torch.Tensor:
        return self.step([(0, 0)], torch.empty(0))

    def step(self, rows: Any, tokens: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(rows), 400)
        logits[:, self.ids[self.t]] = 50.0
        self.t += 1
        return logits


def scripted(monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any, ids: list[int], **options: Any) -> Sample:
    subject = sampler(model, tokenizer)
    monkeypatch.setattr(subject, "_decoder", lambda prompts, options: Script(ids))
    return subject.sample([[5]], SamplingOptions(**options))[0][0]


def test_the_end_of_turn_is_kept_in_the_ids_and_not_in_the_text(
    monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any
) -> None:
    ids = [*tokenizer("ok", add_special_tokens=False)["input_ids"], 2]
    sample = scripted(monkeypatch, model, tokenizer, [*ids, 9], max_tokens=20)
    assert (sample.token_ids, sample.text, sample.finish) == (tuple(ids), "ok", "stop")


def test_a_sample_at_the_limit_is_cut_for_length(monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any) -> None:
    ids = tokenizer("abcdef", add_special_tokens=False)["input_ids"]
    sample = scripted(monkeypatch, model, tokenizer, ids, max_tokens=2)
    assert (sample.token_ids, sample.finish) == (tuple(ids[:2]), "length")
    assert len(sample.logprobs) == 2


def test_a_stop_on_the_last_token_is_a_stop(monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any) -> None:
    ids = tokenizer("x</function>\n", add_special_tokens=False)["input_ids"]
    sample = scripted(monkeypatch, model, tokenizer, ids, max_tokens=len(ids), stop=("</function>",))
    assert (sample.text, sample.finish) == ("x</function>", "stop")


def test_drawing_inverts_the_cumulative_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25])
    logits = probabilities.log().expand(5, -1)
    tokens, logprobs = draw(logits, torch.tensor([0.0, 0.4999, 0.5001, 0.7501, 0.9999], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [1, 1, 3, 4, 4]
    assert logprobs.tolist() == pytest.approx([-0.6931472, -0.6931472, -1.3862944, -1.3862944, -1.3862944])
    # Temperature 0.5 squares the odds: 0.25 : 0.0625 : 0.0625.
    tokens, logprobs = draw(logits, torch.tensor([0.66, 0.67, 0.8, 0.9, 0.99], dtype=torch.float64), 0.5)
    assert tokens.tolist() == [1, 3, 3, 4, 4]
    assert logprobs.exp().tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1 / 6, 1 / 6])
    tokens, logprobs = draw(logits[:1], torch.tensor([0.99], dtype=torch.float64), 0)
    assert (tokens.tolist(), logprobs.exp().tolist()) == ([1], [0.5])


def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any) -> None:
    before = model.config._attn_implementation
    model.train()
    try:
        sampler(model, tokenizer).sample(PROMPTS[:1], SamplingOptions(max_tokens=3))
        assert model.training
        assert model.config._attn_implementation == before == "sdpa"
    finally:
        model.eval()


def test_a_model_that_packing_does_not_reproduce_gets_a_cache_for_each_sample(
    tiny: Callable[..., Any], tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sliding = tiny("mistral", sliding_window=8)
    assert not packs_exactly(sliding, PROMPTS[0])
    subject = sampler(sliding, tokenizer)
    with caplog.at_level(logging.WARNING, logger=module.__name__):
        [[sample]] = subject.sample(PROMPTS[:1], SamplingOptions(max_tokens=12, seed=4))
    assert "packed sampling does not reproduce this model" in caplog.text
    assert isinstance(subject._decoder(PROMPTS[:1], SamplingOptions()), ExpandedDecoder)
    expected = plain_logits(sliding, PROMPTS[0], list(sample.token_ids)).log_softmax(-1)
    expected = expected.gather(-1, torch.tensor(sample.token_ids)[:, None])[:, 0]
    assert torch.tensor(sample.logprobs).sub(expected).abs().max() < 1e-5


def test_the_check_of_packing_can_fail(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PackedDecoder.attend
    monkeypatch.setattr(PackedDecoder, "attend", lambda self, layer, q, k, v, scale: right(self, layer, q * 1.1, k, v, scale))
    assert not packs_exactly(model, PROMPTS[0])


def test_a_prompt_beyond_the_context_is_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(UserError, match="a prompt of 250 tokens and max_tokens = 7 exceed the model's context of 256"):
        sampler(model, tokenizer).sample([[5] * 250], SamplingOptions(max_tokens=7))
    with pytest.raises(ValueError, match="without tokens"):
        sampler(model, tokenizer).sample([[]], SamplingOptions(max_tokens=7))


def test_a_checkpoint_is_refused_since_the_model_is_shared(model: Any, tokenizer: Any, tmp_path: Any) -> None:
    sampler(model, tokenizer).update_weights(None)
    with pytest.raises(ValueError, match="shares the trainer's model"):
        sampler(model, tokenizer).update_weights(tmp_path)


def test_no_prompts_give_no_samples(model: Any, tokenizer: Any) -> None:
    assert sampler(model, tokenizer).sample([], SamplingOptions()) == []
