"""The whole recipe, and how it is written as TOML; `swe_srl/recipes.py` reads one.

Invariant: a `Recipe` is complete and valid: every option is known, typed and in range.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from swe_srl.config.data import DataSection, PromptSection
from swe_srl.config.model import ModelSection
from swe_srl.config.outcome import OutcomeStage
from swe_srl.config.plan import PlanSection
from swe_srl.config.rewards import RewardsSection
from swe_srl.config.run import CheckpointSection, ClusterSection, EvaluationSection, Figure, TrackingSection
from swe_srl.config.sampling import SamplingSection
from swe_srl.config.section import Section
from swe_srl.config.stages import PolicyStage, SftStage, SrlStage, StageSection

Stage = Annotated[SftStage | SrlStage | OutcomeStage, Field(discriminator="objective")]


class Recipe(Section):
    """Everything that decides a run."""

    seed: int = Field(default=0, ge=0, description="Seeds the order of steps, sampling and selections.")
    out: str | None = Field(default=None, description="The run folder, unless the command names one.")
    model: ModelSection
    data: DataSection
    prompt: PromptSection = PromptSection()
    sampling: SamplingSection = SamplingSection()
    rewards: RewardsSection = RewardsSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoints: CheckpointSection = CheckpointSection()
    tracking: TrackingSection = TrackingSection()
    cluster: ClusterSection = ClusterSection()
    plan: PlanSection = PlanSection()
    stages: list[Stage] = Field(min_length=1, description="What is done, in order; each an `sft`, `srl` or `outcome` stage.")

    @model_validator(mode="after")
    def _groups_can_differ(self) -> Recipe:
        for stage in self.stages:
            if not isinstance(stage, PolicyStage):
                continue
            sampling = self.sampling_of(stage)
            if sampling.samples < 2:
                raise ValueError(
                    f"an {stage.objective} stage needs sampling.samples of at least 2: a group of one has no variance"
                )
            if sampling.temperature == 0:
                raise ValueError(f"an {stage.objective} stage needs sampling.temperature above 0: greedy samples do not differ")
        return self

    @model_validator(mode="after")
    def _older_samples_are_corrected(self) -> Recipe:
        if not self.sampling.staleness:
            return self
        sampled = {index: stage for index, stage in enumerate(self.stages) if isinstance(stage, PolicyStage)}
        if not sampled:
            raise ValueError("sampling.staleness has no use without srl or outcome stages: sft samples nothing")
        for index, stage in sampled.items():
            if stage.mismatch == "none":
                raise ValueError(
                    f'stages.{index}: sampling.staleness = 1 needs mismatch = "token" or "sequence": samples come from older '
                    "weights than those trained"
                )
        return self

    @model_validator(mode="after")
    def _there_is_a_best(self) -> Recipe:
        if self.stages[0].from_best:
            raise ValueError("the first stage cannot start from_best: nothing was trained before it")
        for before, stage in pairwise(self.stages):
            if stage.from_best and self.figure_of(before) is None:
                raise ValueError("from_best needs evaluation.best: name the figure that decides which weights are best")
        for index, stage in enumerate(self.stages):
            name, figure = f"stages.{index}", self.figure_of(stage)
            if figure == "resolved_rate" and not isinstance(stage, OutcomeStage):
                raise ValueError(
                    f"{name}: only outcome stages measure resolved_rate; name another figure in this stage's `best`"
                )
            if not self.evaluation.enabled and figure is not None:
                raise ValueError(f"{name}: best needs evaluations: leave evaluation.enabled at true")
            if self.patience_of(stage) is not None and (figure is None or self.evaluation.every is None):
                raise ValueError(f"{name}: patience needs a best figure and evaluation.every")
        return self

    def sampling_of(self, stage: StageSection) -> SamplingSection:
        """How a stage samples: the recipe's way, but for what the stage says itself."""
        own = {name: getattr(stage, name, None) for name in ("samples", "temperature", "max_tokens")}
        return self.sampling.model_copy(update={name: value for name, value in own.items() if value is not None})

    def staleness_of(self, stage: StageSection) -> int:
        """How many updates behind a stage's batches are drawn."""
        return self.sampling.staleness if isinstance(stage, PolicyStage) else 0

    def longest_sample(self, stage: StageSection) -> int:
        """The most tokens that a sample of a stage counts as: an answer's, or a whole rollout's."""
        return stage.agent.max_tokens if isinstance(stage, OutcomeStage) else self.sampling_of(stage).max_tokens

    def figure_of(self, stage: StageSection) -> Figure | None:
        """What decides which of a stage's weights are best; None: nothing does."""
        return stage.best or self.evaluation.best

    def patience_of(self, stage: StageSection) -> int | None:
        """How many evaluations of a stage in a row may bring no new best; None: any number."""
        return stage.patience or self.evaluation.patience

    def to_toml(self) -> str:
        """The recipe as resolved, every option written out; `load_recipe` reads it back to an equal recipe."""
        data = self.model_dump(exclude_none=True)
        stages = data.pop("stages")
        lines = _table("", data)
        for stage in stages:
            lines += ["", "[[stages]]", *_table("stages", {"objective": stage["objective"]} | stage)]
        return "\n".join(lines) + "\n"


def _table(name: str, table: dict[str, object]) -> list[str]:
    """The lines of a table: its own values, then its tables under their full names."""
    lines = [f"{key} = {_toml(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            full = f"{name}.{key}" if name else key
            lines += ["", f"[{full}]", *_table(full, value)]
    return lines


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)
