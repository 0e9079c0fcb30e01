"""The training run: stages of updates between evaluations.

One update is a batch of examples (the expert's answers, or sampled groups with advantages), one backward, one optimizer
step and one line of metrics. Invariant: two runs of one recipe on one machine write equal metrics, times and memory apart,
however often one of them is killed and continued; weights are never half updated. Of several processes each goes through all
of this; sampler, rewards, engine and policy know how they share the work (`shared.py`), and the first alone writes, speaks and
makes rollouts (`leading.py`).
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from rich.console import Console
from rich.progress import Progress as Bars

from swe_srl.config import PolicyStage, Recipe, SftStage, SrlStage, Stage
from swe_srl.environments.nodes import Nodes
from swe_srl.errors import UserError
from swe_srl.policy.base import Sampler, SamplerLost, SamplingOptions
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.rewards.compose import Rewards, build_rewards
from swe_srl.rollouts.steps import StepEvaluation, evaluate_steps
from swe_srl.rollouts.tasks import TaskEvaluation
from swe_srl.terminal import console as terminal
from swe_srl.terminal import progress as progress_bars
from swe_srl.training.ahead import Ahead, Drawn
from swe_srl.training.atomic import write_folder
from swe_srl.training.batches import Batch, Batches, SftBatches, SrlBatches
from swe_srl.training.checkpoints import Checkpoints, Progress, read_progress, restore
from swe_srl.training.data import Dataset, load_dataset, prompt_options, tools_for
from swe_srl.training.devices import mesh_of, open_device, open_processes, peak_memory_mb, reset_peak_memory
from swe_srl.training.evaluations import Evaluations, Made
from swe_srl.training.fitting import check_fit, context_of
from swe_srl.training.folder import RunFolder, versions
from swe_srl.training.interrupt import Interrupt, StopRequested
from swe_srl.training.leading import Leader, LedBatches
from swe_srl.training.objective import Objective
from swe_srl.training.opening import Where, end_again, finished_already
from swe_srl.training.outcome import OutcomeBatches, StageOutline, StageRollouts, open_rollouts
from swe_srl.training.processes import Processes
from swe_srl.training.reference import open_reference
from swe_srl.training.resume import check_data, fingerprint, version_changes
from swe_srl.training.schedule import learning_rate
from swe_srl.training.sharding import PolicyWeights, full_state, load_full_state
from swe_srl.training.shared import in_first, share_rewards, share_sampler
from swe_srl.training.summary import RunSummary, summary
from swe_srl.training.terminal import bar, say
from swe_srl.training.tracking import check_trackers, line, numbers, start_trackers
from swe_srl.training.tree.select import engine_for
from swe_srl.training.update import NotFiniteError, Updater
from swe_srl.training.weights import add_adapter, load_weights, save_weights


@dataclass(slots=True)
class _Run:
    recipe: Recipe
    accelerator: Accelerator
    processes: Processes
    folder: RunFolder
    checkpoints: Checkpoints
    policy: PolicyWeights
    tokenizer: Any
    sampler: Sampler
    dataset: Dataset
    outlines: dict[int, StageOutline]
    """Of outcome stages, by index."""
    rollouts: dict[int, StageRollouts]
    """As many, in the first process."""
    leader: Leader
    evaluations: Evaluations
    interrupt: Interrupt
    rewards: Rewards
    bars: Bars
    started: float
    """By the clock of time.perf_counter, the time already spent taken off."""
    progress: Progress = field(default_factory=Progress)
    optimizer: torch.optim.Optimizer | None = None
    optimizer_state: dict[str, Any] = field(default_factory=dict)
    """Of a continued run, where it was inside a stage."""
    ahead: Drawn | None = None
    """A batch that is drawn and not yet trained on."""

    @property
    def seconds(self) -> float:
        """Spent so far."""
        return time.perf_counter() - self.started

    def say(self, message: str) -> None:
        """One message above the progress bars."""
        say(self.bars.console, message)


def train(
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    console: Console | None = None,
    where: Where | None = None,
) -> RunSummary:
    """Carry out a recipe and write the run folder `out` (see `folder.py` for what it holds), or go on with the run in it.

    Args:
        where: None: where the recipe says.

    Raises:
        UserError: the folder holds a run and neither `overwrite` nor `resume` is true, or none to resume; the recipe differs
            from that of the run resumed; the data or the device do not fit the recipe; or a loss or gradient is not finite
            (the batch is kept in failed-batch.json).
    """
    started = time.perf_counter()
    where = where or Where.of(recipe.cluster)
    with ExitStack() as stack:
        accelerator = open_device(recipe.model, recipe.tracking.trackers, out)
        stack.callback(accelerator.end_training)
        processes = open_processes(accelerator, recipe)
        folder = RunFolder(out, writes=processes.first)
        console = (console or terminal()) if processes.first else Console(quiet=True)
        look = partial(finished_already, folder, recipe, stack, overwrite=overwrite, resume=resume)
        if processes.from_first("a look at the run folder", look):
            found = processes.from_first("the run's end", partial(end_again, recipe, folder, console))
            return replace(found, told=processes.first)
        bars = stack.enter_context(progress_bars(console))
        nodes = stack.enter_context(where.open(processes, partial(say, bars.console)))
        run = _prepare(recipe, folder, bars, started, accelerator, processes, nodes, on_nodes=where.on_nodes)
        stack.enter_context(closing(run.sampler))
        data = run.dataset.summary() | {"fingerprint": fingerprint(run.dataset)}
        data |= {f"stage-{index + 1}-outcome": outline.summary for index, outline in run.outlines.items()}
        if any(other != data for other in processes.gather("the data to be read", data)):
            raise UserError("the processes of this run read different data: give all of them the same files")
        made_with = versions(str(accelerator.device), processes.count)
        if resume:
            _go_back(run, data, made_with)
        else:
            processes.from_first("the run folder", lambda: _begin(run, data, made_with, stack))
        start_trackers(accelerator, recipe.tracking, run.progress.updates)
        with run.interrupt:
            stopped_by = _run_stages(run)
            _end(run, stopped_by)
    return summary(out, run.evaluations.made, run.progress.updates, run.seconds, stopped_by, told=processes.first)


def _begin(run: _Run, data: dict[str, Any], made_with: dict[str, Any], stack: ExitStack) -> None:
    stack.enter_context(run.folder.locked())
    run.folder.begin(run.recipe.to_toml(), made_with, data)


def _prepare(
    recipe: Recipe,
    folder: RunFolder,
    bars: Bars,
    started: float,
    accelerator: Accelerator,
    processes: Processes,
    nodes: Nodes | None,
    *,
    on_nodes: bool,
) -> _Run:
    """Load policy and data and check that they and the recipe fit each other, before anything is written."""
    check_trackers(recipe.tracking)
    torch.manual_seed(recipe.seed)
    model, tokenizer = load_policy(recipe.model.name, dtype=torch.float32, device=str(accelerator.device))
    if recipe.model.lora is not None:
        model = add_adapter(model, recipe.model.lora)
    dataset = load_dataset(recipe, tokenizer, bar(bars, "encoding steps"))
    check_fit(recipe, model, dataset, processes)
    opened = partial(open_rollouts, recipe, dataset, tokenizer, context_of(model), partial(say, bars.console), nodes)
    rollouts = in_first("rollouts to be prepared", opened, processes) or {}
    outlines = processes.from_first("rollouts to be told", lambda: {index: made.outline() for index, made in rollouts.items()})
    if recipe.model.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = PolicyWeights.of(model, mesh_of(accelerator, recipe.model))
    drawing = processes.apart()
    open_own = partial(open_sampler, recipe.sampling, policy.plain, tokenizer, nodes.cluster if nodes else None)
    sampler = share_sampler(open_own, policy, drawing, of_first=on_nodes or recipe.sampling.elsewhere)
    return _Run(
        recipe=recipe,
        accelerator=accelerator,
        processes=processes,
        folder=folder,
        checkpoints=Checkpoints(folder.path, recipe.checkpoints.keep),
        policy=policy,
        tokenizer=tokenizer,
        sampler=sampler,
        dataset=dataset,
        outlines=outlines,
        rollouts=rollouts,
        leader=Leader(sampler, drawing),
        rewards=share_rewards(partial(build_rewards, recipe.rewards, nodes), drawing, of_first=on_nodes),
        evaluations=Evaluations(recipe, folder),
        interrupt=Interrupt(
            lambda number: say(bars.console, f"{number.name}: stopping after this update"),
            lambda number: processes.highest("a look whether to stop", number),
        ),
        bars=bars,
        started=started,
    )


def _go_back(run: _Run, data: dict[str, Any], made_with: dict[str, Any]) -> None:
    """To the newest checkpoint of the run in the folder, or to its beginning where it was killed before the first."""

    def prepare() -> tuple[Path | None, Progress, dict[str, Made]]:
        check_data(run.folder, data)
        for change in version_changes(run.folder, made_with):
            run.say(f"warning: {change} since the run began: its metrics may differ from those of an uninterrupted run")
        checkpoint = run.checkpoints.newest()
        progress = run.progress if checkpoint is None else read_progress(checkpoint)
        run.folder.go_back(progress.lines)
        run.folder.write_text("recipe.toml", run.recipe.to_toml())
        run.folder.write_status("unfinished", progress.updates, progress.seconds)
        run.evaluations.load(progress.updates)
        return checkpoint, progress, run.evaluations.made

    checkpoint, run.progress, run.evaluations.made = run.processes.from_first("the run folder", prepare)
    if checkpoint is not None:
        run.started -= run.progress.seconds
        with run.policy.whole(replaced=True) as policy:
            run.optimizer_state, run.ahead = restore(checkpoint, policy)
        run.sampler.update_weights(None)
    run.say(f"continuing {run.folder.path} after {run.progress.updates} update(s)")


def _run_stages(run: _Run) -> signal.Signals | None:
    """Stages between evaluations; the signal that ended them early, if one did."""
    stages = run.recipe.stages
    try:
        if run.progress.updates == 0:
            _evaluate(run, "before")
        for index in range(run.progress.stage, len(stages)):
            _run_stage(run, index, stages[index])
            if index + 1 == len(stages):
                _evaluate(run, "after")
            else:
                if run.recipe.evaluation.each_stage:
                    _evaluate(run, f"stage-{index + 1}-{stages[index].objective}")
                run.progress = replace(run.progress, stage=index + 1, update=0, batches={})
                run.ahead = None
    except StopRequested as stop:
        return stop.signal
    except SamplerLost as lost:  # before the update that it was to sample for
        _save(run)
        kept = f"{run.progress.updates} update(s) are kept; to continue: {run.folder.how_to_continue}"
        raise UserError(f"{lost}\n{kept}") from lost
    return None


def _run_stage(run: _Run, index: int, stage: Stage) -> None:
    """The training loop: batch, backward, step, metrics, now and then an evaluation and a checkpoint."""
    progress, recipe = run.progress, run.recipe
    batches = Ahead(_batches(run, index, stage), run.sampler, lambda: progress.updates, recipe.staleness_of(stage))
    outline = run.outlines.get(index)
    total = stage.total_updates(outline.starts if outline else len(run.dataset.for_objective(stage.objective)))
    temperature = recipe.sampling_of(stage).temperature if isinstance(stage, PolicyStage) else 1.0
    engine, choice = engine_for(stage, run.policy.trained, temperature, run.processes)
    run.say(f"stage {index + 1} ({stage.objective}) {choice}")
    if stage.from_best and progress.update == 0:
        best = run.processes.from_first("the best weights", partial(run.evaluations.weights_before, index))
        with run.policy.whole(replaced=True) as policy:
            load_weights(policy, best)
        run.sampler.update_weights(None)
    trained = [parameter for parameter in run.policy.trained.parameters() if parameter.requires_grad]
    run.optimizer = torch.optim.AdamW(trained, lr=stage.lr, weight_decay=stage.weight_decay)
    if progress.update > 0:
        batches.restore(progress.batches, run.ahead)
        load_full_state(run.optimizer, run.optimizer_state)
    updater = Updater(run.accelerator, run.policy, _objective(run, index, stage), engine, run.optimizer)
    advance = bar(run.bars, f"stage {index + 1} {stage.objective}")
    while True:
        advance(progress.update, total)
        run.interrupt.check()
        due = recipe.evaluation.every and progress.update % recipe.evaluation.every == 0 and 0 < progress.update < total
        if due or (progress.update == 0 and run.evaluations.begins_anew(index)):
            _evaluate(run, f"stage-{index + 1}-{stage.objective}-update-{progress.update}")
        if progress.update == total or run.evaluations.exhausted(index):
            return
        reset_peak_memory()
        run.policy.trained.eval()
        batch = batches.take(more=progress.update + 1 < total)
        started = time.perf_counter()
        lr = learning_rate(progress.update, total, peak=stage.lr, schedule=stage.schedule, warmup=stage.warmup)
        name = f"stage {index + 1} ({stage.objective}), update {progress.update + 1}"
        place = {"stage": index + 1, "update": progress.update + 1}
        metrics: dict[str, Any] = {**place, "objective": stage.objective, **batch.metrics, "lr": lr}
        if batch.examples:
            metrics |= _update(run, updater, batch, lr, name)
        batches.settle()
        if batch.examples:
            run.sampler.update_weights(None)
        metrics |= {"skipped": not batch.examples, "peak_memory_mb": max(run.processes.gather("peak memory", peak_memory_mb()))}
        metrics["seconds"] = {**batch.seconds, "update": time.perf_counter() - started}
        run.folder.append("samples.jsonl", *({**place, **record} for record in batch.records))
        run.folder.append("metrics.jsonl", metrics)
        progress.update, progress.updates, progress.batches = progress.update + 1, progress.updates + 1, batches.state()
        run.ahead = batches.ahead()
        run.accelerator.log(dict(numbers(metrics)), step=progress.updates)
        run.say(line(metrics, total))
        if recipe.checkpoints.every and progress.updates % recipe.checkpoints.every == 0:
            _save(run)


def _batches(run: _Run, index: int, stage: Stage) -> Batches:
    items, sampling = run.dataset.for_objective(stage.objective), run.recipe.sampling_of(stage)
    seed = f"{run.recipe.seed}/{index}"
    if isinstance(stage, SrlStage):
        return SrlBatches(stage, items, run.sampler, sampling, run.rewards, seed)
    if isinstance(stage, SftStage):
        return SftBatches(stage, items, seed)
    # A batch that is drawn ahead is drawn to its end: later its weights are gone, and it could not be drawn again.
    between = (lambda: None) if sampling.staleness else run.interrupt.check_own
    made_here = run.rollouts.get(index)
    own = OutcomeBatches(made_here, run.leader, sampling, seed, between) if made_here else None
    return LedBatches(own, run.leader)


def _objective(run: _Run, index: int, stage: Stage) -> Objective:
    reference = None
    if isinstance(stage, PolicyStage) and stage.kl_coefficient:
        kept = run.folder.path / "reference" / str(index + 1)
        reference = open_reference(run.policy, kept, begun=run.progress.update > 0, processes=run.processes)
        run.say(f"the KL is to {reference}")
    return Objective(stage, run.recipe.longest_sample(stage), reference)


def _update(run: _Run, updater: Updater, batch: Batch, lr: float, where: str) -> dict[str, Any]:
    """The optimizer steps of one batch; one that fails is kept for inspection."""
    try:
        metrics = updater.update(batch.examples, lr)
    except NotFiniteError as error:
        figures = {"loss": str(error.loss), "grad_norm": str(error.grad_norm)}
        failed = {"where": where, **figures, "examples": batch.to_json(run.tokenizer)}
        run.processes.from_first("failed-batch.json", lambda: run.folder.write_json("failed-batch.json", failed))
        raise UserError(
            f"{where}: {error}; the batch is in {run.folder.path / 'failed-batch.json'}. "
            "Lower the learning rate or use dtype float32"
        ) from error
    return metrics


def _evaluate(run: _Run, name: str) -> None:
    """Greedy evaluation on the held-out steps, and tasks of an outcome stage, written as evaluation-<name>.json."""
    run.interrupt.check()
    stage = run.progress.stage
    on_tasks = stage in run.outlines and run.outlines[stage].held_out > 0
    if not (run.recipe.evaluation.enabled and (run.dataset.validation or on_tasks)):
        return

    def evaluate() -> tuple[StepEvaluation, TaskEvaluation | None]:
        advance = bar(run.bars, f"evaluation {name}")

        def progress(done: int, total: int) -> None:
            advance(done, total)
            run.interrupt.check()

        run.policy.plain.eval()
        max_tokens = run.recipe.evaluation.max_tokens or run.recipe.sampling.max_tokens
        greedy = SamplingOptions(n=1, temperature=0.0, max_tokens=max_tokens, seed=run.recipe.seed)
        options = prompt_options(run.recipe.prompt)
        steps = evaluate_steps(run.dataset.validation, run.sampler, run.tokenizer, tools_for, options, greedy, progress)
        if not on_tasks:
            return steps, None

        def make() -> TaskEvaluation | None:
            return run.rollouts[stage].evaluate(run.leader, max_tokens, run.recipe.seed, run.interrupt.check_own)

        return steps, run.leader.lead("rollouts of held-out tasks", make)

    made = run.evaluations.make(name, run.progress, evaluate, lambda final: _keep_weights(run, final))
    run.accelerator.log(dict(numbers({"evaluation": made.figures()})), step=run.progress.updates)


def _save(run: _Run) -> None:
    """Save a checkpoint of where the run is."""
    optimizer = full_state(run.optimizer, keep=run.processes.first) if run.optimizer else None

    def write() -> None:
        run.progress.lines, run.progress.seconds = run.folder.lengths(), run.seconds
        run.checkpoints.save(run.progress, policy, run.tokenizer, optimizer, run.ahead)
        run.folder.write_status("unfinished", run.progress.updates, run.seconds)

    with run.policy.whole() as policy:
        run.processes.from_first("a checkpoint to be written", write)


def _keep_weights(run: _Run, final: Path) -> None:
    """Write the policy as a folder."""
    with run.policy.whole() as policy:
        write = partial(save_weights, model=policy, tokenizer=run.tokenizer)
        run.processes.from_first("weights to be written", lambda: write_folder(final, write))


def _end(run: _Run, stopped_by: signal.Signals | None) -> None:
    """Leave a stopped run with what it takes to continue it, and a finished one without."""
    updates = run.progress.updates
    if stopped_by is not None:
        _save(run)
    if stopped_by != signal.SIGTERM:  # whoever sends that has little time to give
        _keep_weights(run, run.folder.path / "checkpoint")
    if stopped_by is None:
        run.folder.write_status("finished", updates, run.seconds)
        run.processes.from_first("old checkpoints to be removed", run.checkpoints.remove)
    else:
        run.folder.write_status("interrupted", updates, run.seconds)
        run.say(f"{stopped_by.name}: stopped after {updates} update(s), all kept; to continue: {run.folder.how_to_continue}")
