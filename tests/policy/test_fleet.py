"""Several engines, each a process with a model of its own, sample what one would; those that are killed come back."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from swe_srl.config import SamplingSection
from swe_srl.environments.node_status import engine_processes
from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, SamplerLost, SamplingOptions
from swe_srl.policy.samplers import transformers
from swe_srl.policy.samplers.fleet import Fleet
from swe_srl.policy.samplers.hosting import own_devices
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.policy.samplers.weights import checksum, save_served

OPTIONS = SamplingOptions(n=3, max_tokens=12, seed=7)
PROMPTS = [list(range(5 + start, 45 + start + 8 * start)) for start in (0, 3, 1, 4, 2, 9)]
BUDGET = 200
"""Tokens that are computed together: a call of these prompts is five such parts."""


@pytest.fixture(scope="module")
def policy(model: Any, tokenizer: Any) -> tuple[Any, Any]:
    return copy.deepcopy(model), tokenizer


@pytest.fixture(scope="module")
def fleet(policy: tuple[Any, Any]) -> Iterator[Fleet]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    opened = open_sampler(SamplingSection(engines=2), *policy)
    assert isinstance(opened, Fleet)
    yield opened
    folder = opened._folder
    opened.close()
    opened.close()
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert not folder.exists()


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "BATCH_TOKENS", BUDGET)


def alone(model: Any, tokenizer: Any) -> list[list[Sample]]:
    return TransformersSampler(model, tokenizer, batch_tokens=BUDGET).sample(PROMPTS, OPTIONS)


def engines(fleet: Fleet) -> list[psutil.Process]:
    """The engines' processes, in order."""
    found = []
    for host in fleet._hosts:
        [engine] = psutil.Process(host._lifeline._process.pid).children()  # type: ignore[union-attr]
        found.append(engine)
    return found


def test_samples_are_those_of_one_engine_to_the_bit(fleet: Fleet, policy: tuple[Any, Any]) -> None:
    fleet.report()
    assert fleet.sample(PROMPTS, OPTIONS) == alone(*policy)
    report = fleet.report()["engines"]
    assert sum(report["prompts"]) == len(PROMPTS)
    assert min(report["prompts"]) >= 2, "both engines are to sample"
    assert report["busiest"] < 1.3
    assert (report["found"] >= 0, report["restarts"]) == (True, 0)
    assert fleet.report() == {}


def test_the_machine_counts_its_engines(fleet: Fleet) -> None:
    assert {process.pid for process in engines(fleet)} <= engine_processes()
    assert os.getpid() not in engine_processes()


def test_no_prompts_and_too_long_ones(fleet: Fleet) -> None:
    assert fleet.sample([], OPTIONS) == []
    with pytest.raises(UserError, match="a prompt of 250 tokens and max_tokens = 12 exceed the model's context of 256"):
        fleet.sample([[5] * 250], OPTIONS)


def test_greedy_with_a_stop_string(fleet: Fleet, policy: tuple[Any, Any]) -> None:
    greedy = SamplingOptions(temperature=0, max_tokens=20)
    [[free]] = fleet.sample(PROMPTS[:1], greedy)
    stop = SamplingOptions(temperature=0, max_tokens=20, stop=(free.text[3:6],))
    assert fleet.sample(PROMPTS[:1], stop) == TransformersSampler(*policy).sample(PROMPTS[:1], stop)


@pytest.fixture
def changed(fleet: Fleet, policy: tuple[Any, Any]) -> Iterator[Any]:
    """The trainer's model after an update."""
    model, _ = policy
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
    yield model
    model.load_state_dict(before)
    fleet.update_weights(None)


def test_new_weights_reach_all_engines_and_not_before_they_are_named(
    fleet: Fleet, policy: tuple[Any, Any], changed: Any
) -> None:
    old = fleet.sample(PROMPTS, OPTIONS)
    assert old != alone(*policy)
    fleet.update_weights(None)
    assert fleet.sample(PROMPTS, OPTIONS) == alone(*policy)


def test_an_adapter_is_served_merged(fleet: Fleet, policy: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = policy
    trained = get_peft_model(copy.deepcopy(model), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    save_served(trained, tmp_path / "merged", torch.float32)
    fleet.update_weights(tmp_path / "merged")
    try:
        found = fleet.sample(PROMPTS, OPTIONS)
    finally:
        fleet.update_weights(None)
    expected = alone(trained.eval(), tokenizer)
    assert [s.token_ids for group in found for s in group] == [s.token_ids for group in expected for s in group]
    assert (tmp_path / "merged").is_dir(), "a checkpoint is the caller's"


def test_an_engine_killed_while_it_samples_is_started_again_with_the_weights_of_then(
    fleet: Fleet, policy: tuple[Any, Any], changed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(*policy)
    fleet.update_weights(None)
    fleet.take_weights()
    with torch.no_grad():
        changed.lm_head.weight.mul_(3)  # the trainer goes on
    fleet.report()
    first, second = engines(fleet)
    first.suspend()
    with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.WARNING):
        sampling = pool.submit(fleet.sample, PROMPTS, OPTIONS)
        time.sleep(0.3)
        assert not sampling.done()
        first.kill()
        assert sampling.result(60) == expected
    assert "engine 1 of 2 is started again: it has ended" in caplog.text
    assert fleet.report()["engines"]["restarts"] == 1
    again = engines(fleet)
    assert again[1].pid == second.pid
    assert again[0].pid != first.pid


def test_an_engine_that_reads_other_weights_is_not_asked_for_samples(
    fleet: Fleet, policy: tuple[Any, Any], changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_version = fleet._new_version

    def damaged(checkpoint: Path | None) -> Any:
        version = new_version(checkpoint)
        file = version.folder / "model.safetensors"
        state = {name: tensor.clone() for name, tensor in load_file(file).items()}
        state["model.norm.weight"][3] += 1e-6
        save_file(state, file, metadata={"format": "pt"})
        return version

    fleet.update_weights(None)
    with monkeypatch.context() as patched:
        patched.setattr(fleet, "_new_version", damaged)
        with pytest.raises(SamplerLost, match="engine 1 of 2 has read other weights than it was given"):
            fleet.sample(PROMPTS, OPTIONS)
    assert fleet.sample(PROMPTS, OPTIONS) == alone(*policy)


def test_an_engine_that_computes_with_other_weights_is_not_asked_for_samples(
    fleet: Fleet, changed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = fleet._take

    def one_otherwise(number: int) -> Any:
        serves = take(number)
        return replace(serves, held=(serves.held[0] + 1,)) if number == 1 else serves

    fleet.update_weights(None)
    with monkeypatch.context() as patched:
        patched.setattr(fleet, "_take", one_otherwise)
        with pytest.raises(SamplerLost, match="engine 2 of 2 computes with other weights than the others"):
            fleet.sample(PROMPTS, OPTIONS)
    fleet.update_weights(None)
    fleet.sample(PROMPTS[:1], OPTIONS)


def test_a_checksum_tells_any_change() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(6.0).view(2, 3) + 1}
    before = checksum(state.items())
    assert checksum(reversed(state.items())) == before
    assert checksum({"a": state["b"], "b": state["a"]}.items()) != before
    for name, tensor in state.items():
        other = tensor.clone()
        other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(9.0))
        assert checksum((state | {name: other}).items()) != before
    assert checksum([("a", state["a"].bfloat16())]) == checksum([("a", state["a"].bfloat16().clone())])


def test_each_engine_has_devices_of_its_own_and_the_trainers_is_taken_last() -> None:
    visible = [str(number) for number in range(8)]
    assert own_devices(2, 2, visible) == [["4", "5"], ["6", "7"]]
    assert own_devices(8, 1, visible) == [[name] for name in visible]
    with pytest.raises(UserError, match=r"sampling\.engines = 3, of 4 device\(s\) each, and this machine shows 8"):
        own_devices(3, 4, visible)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"restarts": 1}, "restarts has no use with engine 'transformers'"),
        ({"engine": "vllm-server", "engines": 2}, "does not take engines: start the server with --data-parallel-size"),
    ],
)
def test_options_without_a_use_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        SamplingSection(**options)


def test_an_engine_that_does_not_come_back_is_lost(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last test of the fleet: nothing serves after it."""
    starts = []

    def start(self: Any, number: int, **arguments: Any) -> Any:
        starts.append(number)
        raise SamplerLost("there is no room")

    monkeypatch.setattr(type(fleet._starter), "start", start)
    first, second = engines(fleet)
    second.kill()
    with pytest.raises(SamplerLost, match=r"engine 2 of 2 is lost, and was started again 2 time\(s\): there is no room"):
        fleet.sample(PROMPTS, OPTIONS)
    assert starts == [1, 1]
    first.wait(20)
