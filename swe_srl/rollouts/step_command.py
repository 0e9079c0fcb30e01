"""What `swe-srl evaluate steps` does: read trajectories, load the model, sample, and take the marks apart.

Invariant: every step that was asked for is evaluated or among the skipped, with the reason.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress

from swe_srl.config import EffectReward, SamplingSection
from swe_srl.environments.nodes import Nodes, open_nodes
from swe_srl.environments.shipping import Shipping
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.model import load_policy
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rewards.executing import effect_values, open_forks
from swe_srl.rollouts.command import best_device, fit_context
from swe_srl.rollouts.steps import Effects, StepEvaluation, by_position, by_tool, evaluate_steps
from swe_srl.scaffolds import get_scaffold
from swe_srl.terminal import progress as progress_bars
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step
from swe_srl.trajectories.storage import write_lines


@dataclass(frozen=True, slots=True)
class StepChoice:
    """Which model, and how it is asked."""

    model: str
    samples: int = 1
    temperature: float = 0.0
    answer_tokens: int = 512
    max_steps: int | None = None
    """Evaluate this many steps at most, drawn with the seed."""
    seed: int = 0
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples."""
    effects: EffectReward | None = None
    """Where answers are executed to see what they do; None: nowhere."""
    cluster: str = "local"
    """On which machines: see `open_cluster`."""
    shipping: Shipping = field(default_factory=Shipping)
    """How the nodes of a cluster come to have images."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """An evaluation, whole and in parts."""

    whole: StepEvaluation
    seed: int

    def estimates(self) -> dict[str, Any]:
        """The estimates of all steps, without the steps themselves."""
        return _without_steps(self.whole)

    def parts(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The estimates by the expert's tool and by the place in the trajectory."""
        tools, places = by_tool(self.whole, self.seed), by_position(self.whole, seed=self.seed)
        return {
            "expert's tool": {name: _without_steps(part) for name, part in tools.items()},
            "of the trajectory": {name: _without_steps(part) for name, part in places.items()},
        }

    def to_json(self) -> dict[str, Any]:
        """What `swe-srl evaluate steps --json` prints."""
        return {**self.estimates(), "parts": self.parts()}


def evaluate_steps_command(
    sources: Sequence[str], choice: StepChoice, prompt: PromptOptions, to: Path | None, say: Callable[[str], None]
) -> StepReport:
    """Evaluate a model on every step of the sources. Raises UserError where there is none."""
    if choice.samples > 1 and choice.temperature == 0:
        raise UserError("--samples above 1 need --temperature above 0: greedy answers do not differ")
    steps = [step for trajectory in load(sources) for step in trajectory.steps()]
    if not steps:
        raise UserError(f"no steps in {', '.join(sources)}")
    if choice.max_steps is not None and choice.max_steps < len(steps):
        drawn = sorted(random.Random(choice.seed).sample(range(len(steps)), choice.max_steps))
        steps = [steps[index] for index in drawn]
    with open_nodes(choice.cluster, choice.shipping, say) as nodes, progress_bars() as progress:
        effects = None if choice.effects is None else _effects(choice.effects, progress, nodes)
        return _evaluate(steps, choice, prompt, to, say, progress, effects)


def _evaluate(
    steps: Sequence[Step],
    choice: StepChoice,
    prompt: PromptOptions,
    to: Path | None,
    say: Callable[[str], None],
    progress: Progress,
    effects: Effects | None,
) -> StepReport:
    from swe_srl.policy.samplers.select import open_sampler

    model, tokenizer = load_policy(choice.model, device=best_device())
    fitted = fit_context(prompt, getattr(model.config, "max_position_embeddings", None), choice.answer_tokens)
    options = SamplingOptions(choice.samples, choice.temperature, choice.answer_tokens, seed=choice.seed)
    sampling = SamplingSection(engine=choice.engine)
    with closing(open_sampler(sampling, model, tokenizer)) as sampler:
        bar = progress.add_task("evaluating steps", total=len(steps))
        whole = evaluate_steps(
            steps,
            sampler,
            tokenizer,
            lambda step: get_scaffold(step.trajectory.scaffold).tools,
            fitted,
            options,
            lambda done, _: progress.update(bar, completed=done),
            effects,
        )
    if whole.skipped:
        say(f"{len(whole.skipped)} of {len(steps)} steps could not be evaluated, such as {next(iter(whole.skipped.items()))}")
    if whole.unscored:
        say(f"the effect of {sum(whole.unscored.values())} answers is unknown: {next(iter(whole.unscored))}")
    report = StepReport(whole, choice.seed)
    if to is not None:
        write_lines(to, [json.dumps({**whole.to_json(), "parts": report.parts()}, indent=1)])
    return report


def _effects(options: EffectReward, progress: Progress, nodes: Nodes | None) -> Effects:
    bar = progress.add_task("executing answers", total=None)
    forks = open_forks(options, lambda done, total: progress.update(bar, completed=done, total=total), nodes)
    return lambda pairs: effect_values(forks, pairs)


def _without_steps(evaluation: StepEvaluation) -> dict[str, Any]:
    return {key: value for key, value in evaluation.to_json().items() if key != "steps"}
