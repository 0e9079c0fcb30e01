"""Batches that are sampled while the update before them runs: with which weights, and what a killed run makes of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import killing
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rich.console import Console
from test_resume import everything, finish, folder, stop_in
from tiny_runs import RECIPE, until, updates

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplerLost
from swe_srl.policy.samplers import select
from swe_srl.policy.samplers.serving import Engine, open_engine
from swe_srl.recipes import load_recipe
from swe_srl.training.ahead import Ahead, Drawn, read_drawn, write_drawn
from swe_srl.training.batches import Batch
from swe_srl.training.logprobs import Example, Part
from swe_srl.training.trainer import train

__all__ = ["folder"]

SRL = """
[sampling]
samples = 4
max_tokens = 110
staleness = {staleness}
[evaluation]
every = 2
[checkpoints]
every = 2
[[stages]]
objective = "srl"
updates = 5
steps_per_update = 2
lr = 2e-3
max_refills = 1
mismatch = "token"
"""


class InThisProcess:
    """Hosts whose engines run here: real ones, without the seconds that a process takes to start."""

    def ship(self, folder: Path) -> Path:
        return folder

    def start(self, number: int, **arguments: Any) -> InThisProcess:
        self.engine: Engine = open_engine("transformers", home=Path(), **arguments)
        return self

    def ask(self, method: str, /, **arguments: Any) -> Any:
        return getattr(self.engine, method)(**arguments)

    def close(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_processes", lambda *_: InThisProcess())


def recipe(folder: Path, staleness: int, *overrides: str) -> Recipe:
    path = folder / f"asynchronous-{staleness}.toml"
    path.write_text((RECIPE + SRL.replace("{staleness}", str(staleness))).format(folder=folder))
    return load_recipe(path, overrides)


def run(made: Recipe, out: Path, **options: Any) -> dict[str, Any]:
    train(made, out, console=Console(quiet=True), **options)
    return everything(out)


def samples(run: dict[str, Any]) -> list[Any]:
    return [json.loads(line) for line in run["samples.jsonl"].splitlines()]


def test_each_batch_is_drawn_with_the_weights_from_before_the_update_before(folder: Path, tmp_path: Path, here: None) -> None:
    still = ("stages.0.lr=1e-30", "stages.0.updates=2")
    unchanged = run(recipe(folder, 0, *still), tmp_path / "unchanged")
    in_turns = run(recipe(folder, 0, "stages.0.updates=2"), tmp_path / "in-turns")
    ahead = run(recipe(folder, 1, "stages.0.updates=2"), tmp_path / "ahead")
    assert samples(in_turns) != samples(unchanged), "the first update must change the samples"
    assert samples(ahead) == samples(unchanged), "both batches are of the first weights"

    [first, second] = ahead["metrics"]
    assert (first["staleness"], second["staleness"]) == (0, 1)
    assert first["mismatch_mean"] < 1e-5 < 1e-3 < second["mismatch_mean"]
    assert "staleness" not in in_turns["metrics"][1]
    assert sum(second["engines"]["prompts"]) >= 2
    waited = [json.loads(line)["seconds"] for line in (tmp_path / "ahead" / "metrics.jsonl").read_text().splitlines()]
    assert all(seconds.keys() == {"sample", "reward", "wait", "update"} for seconds in waited)


def test_killed_and_stopped_runs_go_on_as_if_nothing_had_happened(
    folder: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(folder, 1)
    expected = run(made, tmp_path / "whole")
    assert [line["staleness"] for line in expected["metrics"]] == [0, 1, 1, 1, 1]
    assert sum(not line["skipped"] for line in expected["metrics"]) >= 2, "otherwise there is nothing to be lost"

    with monkeypatch.context() as patched:
        stop_in(2, signal.SIGTERM, patched)
        train(made, tmp_path / "stopped", console=Console(quiet=True))
    [checkpoint] = (tmp_path / "stopped" / "checkpoints").iterdir()
    assert (checkpoint / "ahead.json").is_file()
    assert run(made, tmp_path / "stopped", resume=True) == expected

    # With an engine in a process of its own, which dies with the trainer.
    path = folder / "asynchronous-1.toml"
    process = killing.start(path, tmp_path / "killed")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    until(lambda: updates(tmp_path / "killed") >= 3)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert 3 <= metrics.read_text().count("\n") < 5, "after the checkpoint and before the end"
    finish(path, tmp_path / "killed")
    assert everything(tmp_path / "killed") == expected


def test_engines_lost_while_they_draw_ahead_cost_no_update(
    folder: Path, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ask, calls = recipe(folder, 1, "sampling.restarts=0"), InThisProcess.ask, []

    def lost(self: InThisProcess, method: str, /, **arguments: Any) -> Any:
        calls.append(method == "sample" and arguments["options"].temperature > 0)
        if calls[-1] and sum(calls) > 4:
            raise SamplerLost("it has ended")
        return ask(self, method, **arguments)

    with monkeypatch.context() as patched:
        patched.setattr(InThisProcess, "ask", lost)
        with pytest.raises(UserError, match=r"(?s)it has ended.*update\(s\) are kept; to continue: swe-srl train --resume"):
            train(made, tmp_path / "run", console=Console(quiet=True))
    kept = (tmp_path / "run" / "metrics.jsonl").read_text().count("\n")
    assert kept >= 1
    assert not (tmp_path / "run" / "checkpoints" / f"{kept:06d}" / "ahead.json").exists()
    resumed = run(made, tmp_path / "run", resume=True)["metrics"]
    assert [line["staleness"] for line in resumed[kept:]] == [0, 1, 1, 1, 1][: 5 - kept]


class Numbers:
    """Batches that are numbers."""

    def __init__(self) -> None:
        self.position = 0

    def __next__(self) -> Batch:
        self.position += 1
        if self.position == 3:
            raise SamplerLost("lost")
        return Batch([], {"number": self.position})

    def state(self) -> dict[str, int]:
        return {"position": self.position}

    def restore(self, state: Mapping[str, int]) -> None:
        self.position = state["position"]


class Quiet:
    def __init__(self) -> None:
        self.taken = 0

    def take_weights(self) -> None:
        self.taken += 1

    def report(self) -> dict[str, Any]:
        return {}


def test_a_draw_that_fails_is_as_if_it_had_not_begun() -> None:
    sampler: Any = Quiet()
    batches = Ahead(Numbers(), sampler, lambda: 0, 1)
    assert batches.take(more=True).metrics["number"] == 1
    batches.settle()
    assert batches.state() == {"position": 2}
    assert batches.ahead() == Drawn(Batch([], {"number": 2}), 0)
    assert batches.take(more=True).metrics["number"] == 2
    batches.settle()
    assert (batches.state(), batches.ahead()) == ({"position": 2}, None)
    with pytest.raises(SamplerLost, match="lost"):
        batches.take(more=True)
    assert sampler.taken == 2


def test_nothing_is_drawn_for_an_update_that_does_not_come() -> None:
    sampler: Any = Quiet()
    batches = Ahead(Numbers(), sampler, lambda: 0, 1)
    batches.take(more=False)
    batches.settle()
    assert (batches.state(), batches.ahead(), sampler.taken) == ({"position": 1}, None, 0)


floats = st.floats(allow_nan=False, allow_infinity=False)
parts = st.none() | st.builds(Part, st.integers(0, 9), st.integers(0, 9), st.integers(1, 99))


@st.composite
def examples(draw: Callable[..., Any]) -> Example:
    answer = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4))
    logprobs = draw(st.none() | st.lists(floats, min_size=len(answer), max_size=len(answer)))
    prompt = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4))
    return Example(prompt, answer, draw(floats), sampler_logprobs=logprobs, part=draw(parts))


@given(st.lists(examples(), max_size=3), st.dictionaries(st.text(), floats | st.none() | st.text()), st.integers(0, 99))
def test_a_batch_is_kept_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, found: list[Example], metrics: dict[str, Any], updates: int
) -> None:
    path = tmp_path_factory.mktemp("kept") / "ahead.json"
    assert read_drawn(path) is None
    write_drawn(path, Drawn(Batch(found, metrics, [metrics], {"sample": 0.1}), updates))
    read = read_drawn(path)
    assert read is not None
    assert (read.updates, read.batch.metrics, read.batch.records) == (updates, metrics, [metrics])
    for before, after in zip(found, read.batch.examples, strict=True):
        assert list(before.prompt_ids) == list(after.prompt_ids)
        assert list(before.answer_ids) == list(after.answer_ids)
        assert (before.advantage, before.part) == (after.advantage, after.part)
        assert (before.sampler_logprobs and list(before.sampler_logprobs)) == (
            after.sampler_logprobs and list(after.sampler_logprobs)
        )


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (['stages.0.mismatch="none"'], r'stages\.0: sampling\.staleness = 1 needs mismatch = "token" or "sequence"'),
        (['sampling.engine="vllm"', "sampling.vllm.sleep=true"], r"staleness = 1 does not take vllm\.sleep"),
        (["sampling.staleness=2"], "staleness"),
    ],
)
def test_what_cannot_be_drawn_ahead_is_refused_by_name(folder: Path, overrides: list[str], why: str) -> None:
    with pytest.raises((ValidationError, UserError), match=why):
        recipe(folder, 1, *overrides)


def test_it_takes_something_to_sample(folder: Path) -> None:
    with pytest.raises(UserError, match=r"sampling\.staleness has no use without srl or outcome stages"):
        load_recipe(folder / "sft.toml", ["sampling.staleness=1"])
