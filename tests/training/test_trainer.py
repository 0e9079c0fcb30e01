"""The training loop: its books, its folder, its order, and how it ends."""

from __future__ import annotations

import json
import signal
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from scripted import EXACT, INVALID, OTHER, ScriptedSampler, lines, run, timeless, weights, with_stage
from transformers import AutoModelForCausalLM, AutoTokenizer

from swe_srl.config import EvaluationSection, Recipe
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe
from swe_srl.rollouts.steps import Estimate
from swe_srl.training import trainer
from swe_srl.training.logprobs import sequence_logprobs
from swe_srl.training.trainer import train


def test_the_books_are_exact(recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]) -> None:
    scripted.script = [
        # update 0: one flat group is dropped, its replacement is kept only because of the format
        (EXACT, OTHER, INVALID),
        (EXACT, EXACT, EXACT),
        (EXACT, EXACT, INVALID),
        # update 1: nothing informative in the first draw nor in the only refill
        *[(INVALID,) * 3] * 4,
    ]
    summary = run(recipe, tmp_path / "run")
    folder = summary.folder
    metrics = lines(folder, "metrics.jsonl")
    assert [(m["stage"], m["objective"], m["update"]) for m in metrics] == [
        (1, "sft", 1),
        (1, "sft", 2),
        (2, "srl", 1),
        (2, "srl", 2),
    ]
    first, second = metrics[2:]
    samples = lines(folder, "samples.jsonl")
    similarity = next(s["reward"] for s in samples[0]["samples"] if s["text"] == OTHER)
    assert 0.5 < similarity < 1
    rewards = [1.0, similarity, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0]
    assert first["reward_mean"] == pytest.approx(sum(rewards) / 9)
    assert first["format_validity"] == pytest.approx(7 / 9)
    assert first["valid_similarity"] == pytest.approx((6 + similarity) / 7)
    assert first["valid_reward_std"] == pytest.approx((1 - similarity) / 2 / 2)
    counts = ("groups_kept", "groups_dropped", "kept_by_format_only", "refills", "batch_full", "skipped")
    assert [first[key] for key in counts] == [2, 1, 1, 1, True, False]
    assert [second[key] for key in counts] == [0, 4, 0, 1, False, True]
    assert "loss" not in second
    assert first["loss"] == pytest.approx(0, abs=1e-6)
    assert first["grad_norm"] > 0
    assert first["entropy"] > 0
    length = {text: len(text) + 1 for text in (EXACT, OTHER, INVALID)}
    assert first["answer_tokens"] == 3 * length[EXACT] + length[OTHER] + 2 * length[INVALID]
    assert first["forward_tokens"] < first["separate_tokens"] / 2, "the samples of a step share its prompt"
    assert first["answer_tokens_max"] == length[OTHER]
    assert set(first["seconds"]) == {"sample", "reward", "update"}
    assert first["lr"] == 1e-3
    kept = [(s["kept"], [sample["advantage"] for sample in s["samples"]]) for s in samples[:3]]
    assert kept[1] == (True, pytest.approx([0.5**0.5, 0.5**0.5, -(2**0.5)]))
    assert kept[2] == (False, [None, None, None])
    assert len(samples) == 3 + 4
    assert samples[0]["expert"] in EXACT
    assert samples[0]["thought"] == "thought"
    assert [s["valid"] for s in samples[0]["samples"]] == [True, True, False]
    assert (summary.updates, summary.interrupted) == (4, False)
    drawn = [(prompts, options) for prompts, options in scripted.asked if options.temperature == 1.0]
    assert [prompts for prompts, _ in drawn] == [2, 1, 2, 2]
    assert {(options.n, options.max_tokens) for _, options in drawn} == {(3, 8)}
    assert len({options.seed for _, options in drawn}) == 4, "no two draws share their random numbers"


def test_the_run_folder_explains_itself(recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]) -> None:
    scripted.script = [(EXACT, OTHER, INVALID)] * 4
    summary = run(recipe, tmp_path / "run")
    assert {path.name for path in summary.folder.iterdir()} == {
        "recipe.toml",
        "versions.json",
        "data.json",
        "metrics.jsonl",
        "samples.jsonl",
        "evaluation-before.json",
        "evaluation-stage-1-sft.json",
        "evaluation-after.json",
        "checkpoint",
        "run.json",
    }
    assert load_recipe(summary.folder / "recipe.toml") == recipe
    assert tomllib.loads((summary.folder / "recipe.toml").read_text())["stages"][1]["epsilon"] == 0.01
    assert json.loads((summary.folder / "versions.json").read_text())["packages"]["torch"] == torch.__version__
    data = json.loads((summary.folder / "data.json").read_text())
    assert (data["train_steps"], data["train_tasks"], data["validation_tasks"]) == (3, ["lib-1", "lib-2"], ["held-1"])
    assert json.loads((summary.folder / "run.json").read_text())["status"] == "finished"
    assert summary.before is not None
    written = json.loads(json.dumps(summary.to_json()))
    assert (written["updates"], written["before"]["format_validity"]["value"], "steps" in written["after"]) == (4, 1.0, False)
    assert summary.after is not None


def test_one_seed_gives_one_run_and_the_weights_move(recipe: Recipe, policy_folder: Path, tmp_path: Path) -> None:
    # The real sampler: a random model writes nothing valid, so srl alone would not move it, but sft does.
    first, second = run(recipe, tmp_path / "1").folder, run(recipe, tmp_path / "2").folder
    other = run(recipe.model_copy(update={"seed": 6}), tmp_path / "3").folder
    assert timeless(lines(first, "metrics.jsonl")) == timeless(lines(second, "metrics.jsonl"))
    assert (first / "samples.jsonl").read_text() == (second / "samples.jsonl").read_text()
    assert (first / "samples.jsonl").read_text() != (other / "samples.jsonl").read_text()
    assert torch.equal(weights(first / "checkpoint"), weights(second / "checkpoint"))
    assert not torch.equal(weights(first / "checkpoint"), weights(policy_folder))


def test_srl_raises_the_best_answer_and_lowers_the_worst(
    recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]
) -> None:
    scripted.script = [(EXACT, OTHER, INVALID)] * 4
    only_srl = recipe.model_copy(update={"stages": recipe.stages[1:]})
    folder = run(only_srl, tmp_path / "run").folder
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    prompt = tokenizer("<|im_start|>assistant\n")["input_ids"]
    shifts = []
    for text in (EXACT, INVALID):
        answer = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        means = []
        for path in (recipe.model.name, folder / "checkpoint"):
            model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            with torch.no_grad():
                means.append(sequence_logprobs(model, [prompt], [answer])[0].mean().item())
        shifts.append(means[1] - means[0])
    assert shifts[0] > 0 > shifts[1]


def test_the_checkpoint_reloads_to_equal_logits(
    recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.script = [(EXACT, OTHER, INVALID)] * 4
    trained: list[Any] = []
    load = trainer.load_policy
    monkeypatch.setattr(trainer, "load_policy", lambda *a, **k: trained.append(load(*a, **k)) or trained[-1])
    folder = run(recipe, tmp_path / "run").folder
    model, tokenizer = trained[0]
    ids = torch.tensor([tokenizer("def f(): pass")["input_ids"]])
    reloaded = AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(reloaded(ids).logits, model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(folder / "checkpoint").chat_template == tokenizer.chat_template


def test_a_stage_ends_early_and_the_next_starts_from_the_best(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    best: list[torch.Tensor] = []
    real = trainer.evaluate_steps

    def evaluate_steps(*args: Any) -> Any:
        reward = next(rewards)
        if reward == 0.5:
            best.append(torch.cat([parameter.detach().flatten() for parameter in loaded[0][0].parameters()]))
        return replace(real(*args), mean_reward=Estimate(reward, reward, reward))

    loaded: list[Any] = []
    load = trainer.load_policy
    monkeypatch.setattr(trainer, "load_policy", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])
    monkeypatch.setattr(trainer, "evaluate_steps", evaluate_steps)
    evaluation = EvaluationSection(every=1, best="mean_reward", patience=2)
    long = recipe.stages[0].model_copy(update={"updates": 50})
    still = recipe.stages[0].model_copy(update={"updates": 1, "lr": 1e-12, "from_best": True})
    folder = run(recipe.model_copy(update={"evaluation": evaluation, "stages": [long, still]}), tmp_path / "run").folder
    assert [(m["stage"], m["update"]) for m in lines(folder, "metrics.jsonl")] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert torch.equal(weights(folder / "checkpoint-best"), best[0])
    assert torch.allclose(weights(folder / "checkpoint"), best[0], rtol=0, atol=1e-10)
    names = [path.stem for path in sorted(folder.glob("evaluation-*.json"), key=lambda path: path.stat().st_mtime_ns)]
    updates = [f"evaluation-stage-1-sft-update-{n}" for n in (1, 2, 3)]
    assert names == ["evaluation-before", *updates, "evaluation-stage-1-sft", "evaluation-after"]


def test_epochs_and_seeded_order_give_every_step_its_turn(recipe: Recipe, tmp_path: Path) -> None:
    stage = recipe.stages[0].model_copy(update={"updates": None, "epochs": 2.0, "steps_per_update": 1})
    folder = run(recipe.model_copy(update={"stages": [stage]}), tmp_path / "run").folder
    assert len(lines(folder, "metrics.jsonl")) == 6


def test_a_run_is_not_overwritten_unasked(recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]) -> None:
    out = tmp_path / "run"
    only_sft = recipe.model_copy(update={"stages": recipe.stages[:1]})
    run(only_sft, out)
    (out / "replay.json").write_text("[]")
    with pytest.raises(UserError, match="holds a run already"):
        run(only_sft, out)
    (out / "evaluation-stage-7-old.json").write_text("{}")
    run(only_sft, out, overwrite=True)
    assert len(lines(out, "metrics.jsonl")) == 2
    assert not (out / "evaluation-stage-7-old.json").exists()
    assert (out / "replay.json").exists()


def test_ctrl_c_keeps_whole_updates_and_says_so(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = torch.optim.AdamW.step
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return step(*args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    console = Console(record=True, width=200, quiet=False, file=(tmp_path / "log").open("w"))
    summary = train(recipe, tmp_path / "run", console=console)
    assert (summary.updates, summary.interrupted, summary.after) == (1, True, None)
    assert "stopped after 1 update" in console.export_text()
    assert json.loads((summary.folder / "run.json").read_text())["status"] == "interrupted"
    assert (summary.folder / "checkpoint" / "model.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_absent_device_is_refused(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"model\.device: 'cuda'"):
        run(recipe.model_copy(update={"model": recipe.model.model_copy(update={"device": "cuda"})}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("exhausted", "updated"), [("use", True), ("skip", False)])
def test_what_happens_to_a_batch_that_the_refills_did_not_fill(
    recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler], exhausted: str, updated: bool
) -> None:
    scripted.script = [(EXACT, OTHER, INVALID), (EXACT,) * 3, (EXACT,) * 3]
    short = with_stage(recipe, 1, updates=1, exhausted=exhausted)
    (metrics,) = lines(run(short, tmp_path / "run").folder, "metrics.jsonl")
    assert (metrics["groups_kept"], metrics["groups_dropped"], metrics["batch_full"]) == (1, 2, False)
    assert metrics["skipped"] is not updated
    assert ("loss" in metrics) is updated


def test_a_run_may_stop_at_a_batch_that_the_refills_did_not_fill(
    recipe: Recipe, tmp_path: Path, scripted: type[ScriptedSampler]
) -> None:
    scripted.script = [(EXACT, OTHER, INVALID), (EXACT,) * 3, (EXACT,) * 3]
    with pytest.raises(UserError, match="only 1 of 3 groups differ in their rewards, and 2 were wanted, after 1 refills"):
        run(with_stage(recipe, 1, updates=1, exhausted="stop"), tmp_path / "run")
