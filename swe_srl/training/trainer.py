"""The training run: stages of updates between evaluations.

One update is a batch of examples (the expert's answers, or sampled groups with advantages), one backward, one optimizer
step and one line of metrics. Invariant: two runs of one recipe on one machine write equal metrics, times and memory apart;
weights are never half updated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from swe_srl.config import Recipe, SrlStage, Stage
from swe_srl.errors import UserError
from swe_srl.policy.base import Sampler, SamplingOptions
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.rewards.compose import Rewards, build_rewards
from swe_srl.rollouts.steps import StepEvaluation, evaluate_steps
from swe_srl.training.batches import Batch, sft_batches, srl_batches
from swe_srl.training.data import Dataset, check_context, load_dataset, prompt_options, tools_for
from swe_srl.training.devices import open_device, peak_memory_mb, reset_peak_memory
from swe_srl.training.folder import RunFolder, versions
from swe_srl.training.interrupt import Interrupt, StopRequested
from swe_srl.training.logprobs import BackwardResult, Engine, LossFn
from swe_srl.training.losses import grpo_loss, sft_loss
from swe_srl.training.schedule import learning_rate
from swe_srl.training.tree.select import engine_for


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run came to."""

    folder: Path
    before: StepEvaluation | None
    """None where nothing is held out, evaluation is off, or the run stopped earlier."""
    after: StepEvaluation | None
    updates: int
    seconds: float
    interrupted: bool
    """True after Ctrl-C: the checkpoint holds the weights after `updates` updates."""

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON values: evaluations as their estimates, without the answers (those are in the run folder)."""
        evaluations = {"before": self.before, "after": self.after}
        return {
            "folder": str(self.folder),
            "updates": self.updates,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            **{name: _estimates(evaluation) for name, evaluation in evaluations.items()},
        }


@dataclass(slots=True)
class _Run:
    recipe: Recipe
    accelerator: Accelerator
    folder: RunFolder
    model: Any
    tokenizer: Any
    sampler: Sampler
    dataset: Dataset
    interrupt: Interrupt
    bars: Progress
    rewards: Rewards
    updates: int = 0
    evaluations: dict[str, StepEvaluation] = field(default_factory=dict)


def train(recipe: Recipe, out: Path, *, overwrite: bool = False, console: Console | None = None) -> RunSummary:
    """Carry out a recipe and write the run folder `out` (see `folder.py` for what it holds).

    Raises:
        UserError: the folder holds a run and `overwrite` is false, the data or the device do not fit the recipe, or a loss or
            gradient is not finite (the batch is kept in failed-batch.json).
    """
    started = time.perf_counter()
    folder, console = RunFolder(out), console or Console(stderr=True)
    folder.check(overwrite=overwrite)
    torch.manual_seed(recipe.seed)
    accelerator = open_device(recipe.model)
    rewards = build_rewards(recipe.rewards)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        model, tokenizer = load_policy(recipe.model.name, dtype=torch.float32, device=str(accelerator.device))
        dataset = load_dataset(recipe, tokenizer, _bar(bars, "encoding steps"))
        for stage in recipe.stages:
            dataset.for_objective(stage.objective)
            engine_for(stage, model, 1.0)
        check_context(dataset, recipe, getattr(model.config, "max_position_embeddings", None))
        if recipe.model.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        folder.open()
        folder.write_text("recipe.toml", recipe.to_toml())
        folder.write_json("versions.json", versions(str(accelerator.device)))
        folder.write_json("data.json", dataset.summary())
        interrupt = Interrupt(lambda: console.print("stopping after this update; Ctrl-C again stops now, without a checkpoint"))
        run = _Run(
            recipe,
            accelerator,
            folder,
            model,
            tokenizer,
            TransformersSampler(model, tokenizer),
            dataset,
            interrupt,
            bars,
            rewards,
        )
        with interrupt:
            finished = _run_stages(run)
            folder.save_checkpoint(model, tokenizer)
    if not finished:
        console.print(f"stopped after {run.updates} update(s); kept in {out}: metrics, samples and the weights so far")
    seconds = time.perf_counter() - started
    status = "finished" if finished else "interrupted"
    folder.write_json("run.json", {"status": status, "updates": run.updates, "seconds": seconds})
    before, after = run.evaluations.get("before"), run.evaluations.get("after")
    return RunSummary(out, before, after, run.updates, seconds, not finished)


def _run_stages(run: _Run) -> bool:
    """Stages between evaluations; false when Ctrl-C ended them early."""
    try:
        _evaluate(run, "before")
        for index, stage in enumerate(run.recipe.stages):
            _run_stage(run, index, stage)
            if index + 1 == len(run.recipe.stages):
                _evaluate(run, "after")
            elif run.recipe.evaluation.each_stage:
                _evaluate(run, f"stage-{index + 1}-{stage.objective}")
    except StopRequested:
        return False
    return True


def _run_stage(run: _Run, index: int, stage: Stage) -> None:
    """The training loop: batch, backward, step, metrics."""
    items = run.dataset.for_objective(stage.objective)
    total = stage.total_updates(len(items))
    seed = f"{run.recipe.seed}/{index}"
    if isinstance(stage, SrlStage):
        batches = srl_batches(stage, items, run.sampler, run.recipe.sampling, run.rewards, seed)
    else:
        batches = sft_batches(stage, items, seed)
    temperature = run.recipe.sampling.temperature if stage.objective == "srl" else 1.0
    engine, choice = engine_for(stage, run.model, temperature)
    run.bars.console.print(f"stage {index + 1} ({stage.objective}) {choice}")
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=stage.lr, weight_decay=stage.weight_decay)
    advance = _bar(run.bars, f"stage {index + 1} {stage.objective}")
    for update in range(total):
        advance(update, total)
        run.interrupt.check()
        reset_peak_memory()
        run.model.eval()
        batch = next(batches)
        started = time.perf_counter()
        lr = learning_rate(update, total, peak=stage.lr, schedule=stage.schedule, warmup=stage.warmup)
        name = f"stage {index + 1} ({stage.objective}), update {update + 1}"
        place = {"stage": index + 1, "update": update + 1}
        metrics: dict[str, Any] = {**place, "objective": stage.objective, **batch.metrics, "lr": lr}
        if batch.examples:
            metrics |= _update(run, stage, engine, optimizer, batch, lr, name)
        metrics |= {"skipped": not batch.examples, "peak_memory_mb": peak_memory_mb()}
        metrics["seconds"] = {**batch.seconds, "update": time.perf_counter() - started}
        run.folder.append("samples.jsonl", *({**place, **record} for record in batch.records))
        run.folder.append("metrics.jsonl", metrics)
        run.updates += 1
    advance(total, total)


def _update(
    run: _Run, stage: Stage, engine: Engine, optimizer: torch.optim.Optimizer, batch: Batch, lr: float, name: str
) -> dict[str, Any]:
    """One backward and one optimizer step; refuses to step on anything that is not finite."""
    run.model.train()
    optimizer.zero_grad(set_to_none=True)
    # Around training alone: a sampler under autocast would cast every weight again for each token it draws.
    with run.accelerator.autocast():
        result: BackwardResult = engine.backward(run.model, batch.examples, _loss_fn(stage))
    grad_norm = float(torch.nn.utils.clip_grad_norm_(run.model.parameters(), stage.max_grad_norm))
    if not (math.isfinite(result.loss) and math.isfinite(grad_norm)):
        place = {"where": name, "loss": str(result.loss), "grad_norm": str(grad_norm)}
        run.folder.write_json("failed-batch.json", {**place, "examples": batch.to_json(run.tokenizer)})
        raise UserError(
            f"{name}: loss {result.loss}, gradient norm {grad_norm}; the batch is in {run.folder.path / 'failed-batch.json'}. "
            "Lower the learning rate or use dtype float32"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    run.sampler.update_weights(None)
    tokens = {name: getattr(result, name) for name in ("answer_tokens", "forward_tokens", "separate_tokens")}
    return {"loss": result.loss, "grad_norm": grad_norm, "entropy": -result.mean_logprob, **tokens}


def _loss_fn(stage: Stage) -> LossFn:
    if isinstance(stage, SrlStage):
        low, high = stage.clip_low, stage.clip_high
        # With one update a batch the old policy is the current one; computing it apart would only add rounding.
        return lambda logprobs, mask, advantages: grpo_loss(
            logprobs, logprobs.detach(), mask, advantages, clip_low=low, clip_high=high
        )
    return lambda logprobs, mask, advantages: sft_loss(logprobs, mask)


def _evaluate(run: _Run, name: str) -> None:
    """Greedy evaluation on the held-out steps, written as evaluation-<name>.json."""
    run.interrupt.check()
    if not (run.recipe.evaluation.enabled and run.dataset.validation):
        return
    advance = _bar(run.bars, f"evaluation {name}")

    def progress(done: int, total: int) -> None:
        advance(done, total)
        run.interrupt.check()

    run.model.eval()
    max_tokens = run.recipe.evaluation.max_tokens or run.recipe.sampling.max_tokens
    greedy = SamplingOptions(n=1, temperature=0.0, max_tokens=max_tokens, seed=run.recipe.seed)
    options = prompt_options(run.recipe.prompt)
    evaluation = evaluate_steps(run.dataset.validation, run.sampler, run.tokenizer, tools_for, options, greedy, progress)
    run.evaluations[name] = evaluation
    run.folder.write_json(f"evaluation-{name}.json", evaluation.to_json())


def _estimates(evaluation: StepEvaluation | None) -> dict[str, Any] | None:
    if evaluation is None:
        return None
    return {key: value for key, value in evaluation.to_json().items() if key != "steps"}


def _bar(bars: Progress, description: str) -> Callable[[int, int], None]:
    """A progress bar that is moved by (done, total)."""
    task = bars.add_task(description, total=None)
    return lambda done, total: bars.update(task, completed=done, total=total)
