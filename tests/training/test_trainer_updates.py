"""One update of the training loop: its engines, its passes over a batch, its precision, and a loss that is no number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hand_made import trajectory
from rich.console import Console
from scripted import EXACT, INVALID, OTHER, ScriptedSampler, lines, run, timeless, weights, with_stage

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.training import objective
from swe_srl.training.trainer import train
from swe_srl.trajectories.storage import write_jsonl


def test_an_update_starts_from_no_gradient(recipe: Recipe, tmp_path: Path) -> None:
    stage = recipe.stages[0].model_copy(update={"updates": 3, "steps_per_update": 3, "lr": 1e-12})
    folder = run(recipe.model_copy(update={"stages": [stage]}), tmp_path / "run").folder
    norms = [line["grad_norm"] for line in lines(folder, "metrics.jsonl")]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-4)


def test_the_engines_differ_in_tokens_and_nothing_else(recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]) -> None:
    found = {}
    for engine in ("auto", "tree", "separate"):
        scripted.script = [(EXACT, OTHER, INVALID)] * 4
        stages = [stage.model_copy(update={"engine": engine}) for stage in recipe.stages]
        console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
        folder = train(recipe.model_copy(update={"stages": stages}), tmp_path / engine, console=console).folder
        found[engine] = lines(folder, "metrics.jsonl")
        choice = 'trains separate sequences: engine = "separate"' if engine == "separate" else "trains each batch as one tree"
        assert f"stage 2 (srl) {choice}" in console.export_text()
    assert timeless(found["auto"]) == timeless(found["tree"])
    for tree, separate in zip(found["tree"], found["separate"], strict=True):
        for name in ("loss", "grad_norm", "entropy"):
            assert tree[name] == pytest.approx(separate[name], abs=1e-4)
        assert tree["separate_tokens"] == separate["separate_tokens"] <= separate["forward_tokens"]
    assert found["tree"][2]["forward_tokens"] < found["separate"][2]["forward_tokens"] / 2


def test_a_tree_that_the_model_does_not_allow_is_refused_at_the_start(
    recipe: Recipe, policy_folder: Path, tmp_path: Path
) -> None:
    config = json.loads((policy_folder / "config.json").read_text())
    (policy_folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    stages = [recipe.stages[0], recipe.stages[1].model_copy(update={"engine": "tree"})]
    with pytest.raises(UserError, match='engine = "tree" does not serve this model: it uses dropout'):
        run(recipe.model_copy(update={"stages": stages}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sft_on_the_steps_of_a_trajectory_shares_their_prefix(recipe: Recipe, tmp_path: Path) -> None:
    write_jsonl(Path(recipe.data.train[0]), [trajectory("a", "lib-1", ["ls"] * 8), trajectory("c", "held-1", ["ls"])])
    found = {}
    for engine in ("tree", "separate"):
        stage = {"engine": engine, "order": "trajectories", "steps_per_update": 8, "updates": 2}
        found[engine] = lines(run(with_stage(recipe, 0, **stage), tmp_path / engine).folder, "metrics.jsonl")
    for tree, separate in zip(*found.values(), strict=True):
        assert tree["loss"] == pytest.approx(separate["loss"], abs=1e-4)
        assert tree["grad_norm"] == pytest.approx(separate["grad_norm"], rel=1e-3)
        assert tree["separate_tokens"] == separate["separate_tokens"]
        assert tree["forward_tokens"] < tree["separate_tokens"] / 3


def test_a_batch_may_have_several_updates_held_by_a_kl(recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]) -> None:
    found = {}
    for engine in ("tree", "separate"):
        scripted.script = [(EXACT, OTHER, INVALID)] * 4
        several = {"mini_batches": 2, "passes": 2, "kl_coefficient": 0.1, "clip_low": 0.01, "clip_high": 0.01}
        found[engine] = lines(run(with_stage(recipe, 1, engine=engine, **several), tmp_path / engine).folder, "metrics.jsonl")
    first, second = found["tree"]
    length = {text: len(text) + 1 for text in (EXACT, OTHER, INVALID)}
    assert first["optimizer_steps"] == 4
    assert first["answer_tokens"] == 4 * sum(length.values()), "2 steps, twice"
    # The reference is the policy before the batch: only the second part's first pass is apart from it already.
    assert 0 <= first["kl"] < second["kl"]
    assert 0 < first["clipped"] < 1
    assert first["mismatch_mean"] == pytest.approx(first["entropy"]), "the script's log-probabilities are all 0"
    assert (tmp_path / "tree" / "reference" / "1" / "model.safetensors").is_file()
    for tree, separate in zip(*found.values(), strict=True):
        for name in ("loss", "grad_norm", "entropy", "kl", "mismatch_mean"):
            assert tree[name] == pytest.approx(separate[name], abs=2e-3), name


def test_bfloat16_is_arithmetic_only_so_small_steps_are_not_rounded_away(
    recipe: Recipe, policy_folder: Path, tmp_path: Path
) -> None:
    model = recipe.model.model_copy(update={"dtype": "bfloat16", "gradient_checkpointing": True})
    stage = recipe.stages[0].model_copy(update={"lr": 1e-6})
    folder = run(recipe.model_copy(update={"model": model, "stages": [stage]}), tmp_path / "run").folder
    exact = run(recipe.model_copy(update={"stages": [stage]}), tmp_path / "exact").folder
    losses = [lines(path, "metrics.jsonl")[0]["loss"] for path in (folder, exact)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    moved = (weights(folder / "checkpoint") - weights(policy_folder)).abs()
    assert 0.9e-6 < moved.max() < 2.1e-6
    assert (moved > 0).float().mean() > 0.5


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: float
) -> None:
    calls: list[int] = []
    real = objective.sft_loss

    def poisoned(logprobs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(logprobs, mask) * (poison if len(calls) == 2 else 1.0)

    monkeypatch.setattr(objective, "sft_loss", poisoned)
    with pytest.raises(UserError, match=rf"stage 1 \(sft\), update 2: loss {poison}"):
        run(recipe, tmp_path / "run")
    failed = json.loads((tmp_path / "run" / "failed-batch.json").read_text())
    assert failed["loss"] == str(poison)
    assert [example["answer"].endswith("</function><|im_end|>") for example in failed["examples"]] == [True, True]
    assert len(lines(tmp_path / "run", "metrics.jsonl")) == 1
    assert not (tmp_path / "run" / "checkpoint").exists()
