"""Two of vLLM's engines share a call, and one of them is killed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psutil
import pytest
import torch

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler

pytestmark = pytest.mark.xdist_group("vllm")

GREEDY = SamplingOptions(n=1, temperature=0.0, max_tokens=16)
PROMPTS = [[5 + (first + i) % 395 for i in range(140 * step)] for first in (0, 200) for step in range(1, 5)]
"""Four steps of two trajectories; on a CPU vLLM keeps prefixes in blocks of 128 tokens."""


def test_one_of_two_engines_is_killed_while_both_sample(
    tiny: Callable[..., Any], tokenizer: Any, vllm_engine: None, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny("llama", head_dim=64, max_position_embeddings=640)  # vLLM on a CPU serves no smaller heads
    section = VllmSection(max_model_len=640, kv_cache_gib=0.1, compile=False)
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with closing(open_sampler(SamplingSection(engine="vllm", engines=2, vllm=section), model, tokenizer)) as fleet:
        assert texts(fleet.sample(PROMPTS, GREEDY)) == texts(TransformersSampler(model, tokenizer).sample(PROMPTS, GREEDY))
        report = fleet.report()["engines"]
        assert report["prompts"] == [4, 4], "a trajectory an engine"

        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        expected = texts(TransformersSampler(model, tokenizer).sample(PROMPTS, GREEDY))
        fleet.update_weights(None)
        fleet.take_weights()
        serving = [p for p in psutil.Process().children(recursive=True) if "swe_srl.policy.samplers.serving" in p.cmdline()]
        [engine] = [p for p in serving if p.ppid() == fleet._hosts[1]._lifeline._process.pid]  # type: ignore[attr-defined]
        engine.suspend()
        with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING):
            sampling = pool.submit(fleet.sample, PROMPTS, GREEDY)
            time.sleep(0.5)
            assert not sampling.done()
            engine.kill()
            assert texts(sampling.result(300)) == expected
        assert "engine 2 of 2 is started again: it has ended" in caplog.text
        assert fleet.report()["engines"]["restarts"] == 1
        assert texts(fleet.sample(PROMPTS, GREEDY)) == expected
        asked, found = fleet.prefix_cache()  # type: ignore[attr-defined]
        assert found > asked / 3
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert psutil.wait_procs(left, timeout=20)[1] == []


def texts(groups: list[list[Sample]]) -> list[tuple[tuple[int, ...], str]]:
    return [(sample.token_ids, sample.text) for group in groups for sample in group]
