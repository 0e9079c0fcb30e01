"""The one typed configuration of a run.

Invariant: a `Recipe` is complete and valid: every option is known, typed and in range. `recipes.py` reads one from TOML. Paths
in a recipe are relative to the current working directory, not to the recipe's file. Nothing here imports torch.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from swe_srl.scaffolds.kinds import KINDS, Kind


class Section(BaseModel):
    """A section of a recipe: immutable, strictly typed, without unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """Which policy is trained, and where."""

    name: str = Field(description="A Hugging Face name, a folder, or a built-in name such as smollm2-135m.")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Arithmetic of training. Weights, optimizer state and sampling are always float32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes an accelerator where there is one.")
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in backward: less memory, more time."
    )


class DataSection(Section):
    """What is learnt from, and what is held out. The split is by task: all runs of a task stay on one side."""

    train: list[str] = Field(min_length=1, description="Trajectory files, folders or globs, relative to the working directory.")
    validation: list[str] = Field(
        default=[], description="More trajectories, all held out; their tasks are removed from training."
    )
    hold_out_tasks: list[str] = Field(
        default=[], description="Globs over task ids to hold out; an id begins with its repository, so `gridtext-*` is one."
    )
    only_resolved: bool = Field(
        default=False, description="Leave out trajectories that are not known to have solved their task."
    )
    targets: list[Kind] = Field(
        default=list(KINDS),
        min_length=1,
        description="Kinds of actions that are targets, in training and validation; see swe_srl.scaffolds.kinds.",
    )
    last_submit: bool = Field(default=True, description="Whether the submit that ends a run is a target.")
    replay: str | None = Field(
        default=None,
        description="Run folder of `swe-srl replay --require …`: training steps that it marked or did not replay are dropped.",
    )
    max_train_steps: int | None = Field(
        default=None, ge=1, description="Train on this many steps at most, drawn with the seed."
    )
    max_validation_steps: int | None = Field(
        default=None, ge=1, description="Evaluate on this many at most, drawn with the seed."
    )


class PromptSection(Section):
    """How a step becomes a prompt."""

    last_pairs: int | None = Field(
        default=None, ge=0, description="Keep the issue and the last n action-observation pairs; absent: the whole prefix."
    )
    max_observation_chars: int = Field(default=10_000, ge=1, description="Longer observations are cut in the middle.")
    tool_descriptions: bool = Field(
        default=True, description="Describe every tool and parameter; false lists the signatures alone."
    )
    max_prompt_tokens: int | None = Field(
        default=None,
        ge=1,
        description="A longer prompt is cut, and counted: observations are shortened if the next option is given, then pairs "
        "are left out, oldest first, until it fits. A step that cannot fit is dropped, and counted.",
    )
    shorten_observations_to: int | None = Field(
        default=None,
        ge=0,
        description="With max_prompt_tokens: observations are cut to this many characters, oldest first, before pairs go.",
    )

    @model_validator(mode="after")
    def _shortening_has_a_use(self) -> PromptSection:
        if self.shorten_observations_to is not None:
            if self.max_prompt_tokens is None:
                raise ValueError("shorten_observations_to needs max_prompt_tokens: without a budget nothing is shortened")
            if self.shorten_observations_to >= self.max_observation_chars:
                raise ValueError("shorten_observations_to must be less than max_observation_chars, or it shortens nothing")
        return self


class SamplingSection(Section):
    """How answers are sampled during srl stages; evaluation is greedy."""

    samples: int = Field(default=8, ge=1, description="Answers a step: the group size G.")
    temperature: float = Field(
        default=1.0, ge=0, description="Sampling temperature; log-probabilities are taken at the same one."
    )
    max_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens; a longer one is cut and invalid.")


class EvaluationSection(Section):
    """Greedy evaluation on the held-out steps, before training and after stages."""

    enabled: bool = Field(default=True, description="Evaluate at all; without held-out steps there is nothing to evaluate.")
    each_stage: bool = Field(default=True, description="Also evaluate between stages.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest answer, in tokens; absent: as in sampling.")


class RewardPart(Section):
    """What every reward has. The reward of a valid answer is the sum of weight times value; values are in [0, 1]."""

    weight: float = Field(default=1.0, gt=0, description="What its value counts in the sum.")


class SimilarityReward(RewardPart):
    """2M/T of the expert's and the sample's action. The defaults are the paper's, or ours where the paper does not say."""

    compare: Literal["text", "arguments"] = Field(
        default="text", description="The actions as written, tags included, or the arguments of their calls field by field."
    )
    unit: Literal["character", "token", "line"] = Field(default="character", description="What is matched.")
    autojunk: bool = Field(default=False, description="difflib's heuristic, which distorts actions of 200 units and more.")
    cap: int | None = Field(
        default=None,
        ge=1,
        description="In longer actions the common beginning and end are matched, and this many units of what lies between.",
    )
    processes: int = Field(default=1, ge=1, description="Score in this many processes; pays for long actions only.")


class FunctionalReward(RewardPart):
    """Whether the actions mean the same: tool category, then target, then fields."""

    threshold: float | None = Field(
        default=None, gt=0, le=1, description="1 from this value on and 0 below; absent: the value itself."
    )


class EffectReward(RewardPart):
    """What the actions do, executed in forks of the state before the step. Needs a Docker daemon."""

    replay: str | None = Field(
        default=None, description="Run folder of `swe-srl replay … --snapshot changed`: its snapshots are forked."
    )
    tasks: list[str] = Field(
        default=[],
        description="Tasks (as for replay) in whose images the steps before are executed where there is no snapshot.",
    )
    workers: int = Field(default=2, ge=1, description="Forks at a time.")
    timeout_seconds: float = Field(default=60.0, gt=0, description="Of one action; its trajectory's own limit where shorter.")
    max_seconds: float | None = Field(
        default=None, gt=0, description="Of one draw of samples; what has not begun by then is unscored. Absent: no limit."
    )
    cache: str | None = Field(
        default=None, description="Folder of effects found before; absent: `effects` in the cache folder, shared by all runs."
    )

    @model_validator(mode="after")
    def _states_come_from_somewhere(self) -> EffectReward:
        if self.replay is None and not self.tasks:
            raise ValueError("effects need states to fork: give `replay`, `tasks` or both")
        return self


class RewardsSection(Section):
    """How an answer is rewarded in srl stages. Where no reward is named it is the paper's: similarity with weight 1."""

    invalid: Literal["minus-one", "graded"] = Field(
        default="minus-one", description="An answer that breaks the format: -1 as in the paper, or -1 to -0.2 by how."
    )
    similarity: SimilarityReward | None = Field(default=None, description="Text similarity.")
    functional: FunctionalReward | None = Field(default=None, description="Functional equivalence.")
    effect: EffectReward | None = Field(default=None, description="What the action does.")

    @model_validator(mode="after")
    def _papers_unless_named(self) -> RewardsSection:
        if self.similarity is None and self.functional is None and self.effect is None:
            object.__setattr__(self, "similarity", SimilarityReward())  # frozen for everyone else
        return self


class StageSection(Section):
    """What every stage has, whatever its objective. The optimizer is AdamW, new for each stage."""

    updates: int | None = Field(default=None, ge=1, description="Optimizer updates; give either updates or epochs.")
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training steps; rounded up to whole updates. Refills draw beyond it."
    )
    steps_per_update: int = Field(default=8, ge=1, description="Steps in the batch of one update.")
    lr: float = Field(gt=0, description="Peak learning rate.")
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="The rate after warm-up; cosine ends at 0.")
    warmup: float = Field(
        default=0.0, ge=0, le=1, description="Share of the updates over which the rate rises linearly from 0."
    )
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this norm.")
    tokens_per_microbatch: int = Field(
        default=4096,
        ge=1,
        description="Padded tokens of one forward at most; a longer sequence goes alone. Results do not depend on it.",
    )
    engine: Literal["auto", "tree", "separate"] = Field(
        default="auto",
        description="tree computes what the samples of a batch share once; separate takes each alone; auto is tree wherever it "
        "is exact for the model, and says so.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> StageSection:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError("give exactly one of `updates` and `epochs`")
        return self

    def total_updates(self, steps: int) -> int:
        """The stage's updates, given the number of training steps."""
        if self.updates is not None:
            return self.updates
        assert self.epochs is not None, "validated"
        return max(1, -int(-self.epochs * steps // self.steps_per_update))


class SftStage(StageSection):
    """Supervised fine-tuning on the expert's thought and action."""

    objective: Literal["sft"]


class SrlStage(StageSection):
    """GRPO on the similarity of sampled actions to the expert's."""

    objective: Literal["srl"]
    clip_low: float = Field(
        default=0.2, gt=0, lt=1, description="Token ratios are clipped below 1 - this; idle at one update a batch."
    )
    clip_high: float = Field(
        default=0.2, gt=0, description="Token ratios are clipped above 1 + this; idle at one update a batch."
    )
    std_normalisation: bool = Field(default=True, description="Divide advantages by the group's standard deviation.")
    epsilon: float = Field(
        default=0.01, ge=0, description="Dynamic sampling keeps a group if the population std of its rewards is above this."
    )
    max_refills: int = Field(
        default=4, ge=0, description="Draws that replace dropped groups, at most; then the batch is used unfilled."
    )


Stage = Annotated[SftStage | SrlStage, Field(discriminator="objective")]


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
    stages: list[Stage] = Field(min_length=1, description="What is done, in order; each an `sft` or `srl` stage.")

    @model_validator(mode="after")
    def _groups_can_differ(self) -> Recipe:
        if any(stage.objective == "srl" for stage in self.stages):
            if self.sampling.samples < 2:
                raise ValueError("an srl stage needs sampling.samples of at least 2: a group of one has no variance")
            if self.sampling.temperature == 0:
                raise ValueError("an srl stage needs sampling.temperature above 0: greedy samples do not differ")
        return self

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
