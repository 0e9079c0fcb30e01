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


class LoraSection(Section):
    """Low-rank adapters (arXiv 2106.09685): the model's own weights stay as they are. Needs peft."""

    rank: int = Field(default=16, ge=1, description="Rank of each adapter.")
    alpha: float = Field(default=32.0, gt=0, description="Adapters count alpha / rank times.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Dropout before each adapter; above 0 a batch cannot be trained as one tree."
    )
    targets: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Ends of the names of the layers adapted; absent: every linear layer but the head.",
    )


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
    lora: LoraSection | None = Field(default=None, description="Train adapters alone; absent: train every weight.")


class DifficultySection(Section):
    """Training steps kept by how hard they are for a policy; a bound that is absent does not bound."""

    file: str = Field(description="What `swe-srl profile` wrote with this recipe's data and prompt; other steps are dropped.")
    min_std: float | None = Field(
        default=None, ge=0, description="Least population std of a step's rewards; above 0 leaves out steps that teach nothing."
    )
    min_mean: float | None = Field(default=None, description="Least mean reward: leaves out what is too hard.")
    max_mean: float | None = Field(default=None, description="Largest mean reward: leaves out what is too easy.")

    @model_validator(mode="after")
    def _bounds_something(self) -> DifficultySection:
        if (self.min_std, self.min_mean, self.max_mean) == (None, None, None):
            raise ValueError("give at least one of min_std, min_mean and max_mean: the file alone keeps everything")
        if self.min_mean is not None and self.max_mean is not None and self.min_mean > self.max_mean:
            raise ValueError("min_mean must not be above max_mean")
        return self


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
    difficulty: DifficultySection | None = Field(
        default=None, description="Keep training steps by their difficulty; absent: keep all."
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


class VllmSection(Section):
    """How vLLM serves the policy; see docs/samplers.md."""

    url: str | None = Field(default=None, description="Where the server answers, for engine vllm-server; http://HOST:PORT.")
    weights_folder: str | None = Field(
        default=None,
        description="A folder that trainer and server both see, for new weights; absent: the folder for temporary files.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Precision of the served weights; bfloat16 halves memory, and its log-probabilities differ more.",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="Longest prompt and answer together, in tokens; absent: the model's context."
    )
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory for keys and values, in GiB; absent: 2 on a CPU, what gpu_memory_utilization leaves on a GPU.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory for vLLM, weights included; absent: vLLM's default."
    )
    tensor_parallel: int = Field(default=1, ge=1, description="Devices that a model is split over.")
    compile: bool = Field(
        default=True,
        description="Compile the model, and capture CUDA graphs: a slower start (minutes on a CPU), faster samples.",
    )
    sleep: bool = Field(
        default=False, description="Give the GPU's memory back between samplings, where trainer and vLLM share it; CUDA only."
    )

    @model_validator(mode="after")
    def _one_size(self) -> VllmSection:
        if self.kv_cache_gib is not None and self.gpu_memory_utilization is not None:
            raise ValueError("give at most one of `kv_cache_gib` and `gpu_memory_utilization`")
        return self

    def set_to(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]


_SERVER_OPTIONS = ("url", "weights_folder")


class SamplingSection(Section):
    """How answers are sampled during srl stages; evaluation is greedy."""

    engine: Literal["transformers", "vllm", "vllm-server"] = Field(
        default="transformers",
        description="transformers samples from the trainer's own model; vllm starts an engine beside the trainer; vllm-server "
        "uses one that is running.",
    )
    samples: int = Field(default=8, ge=1, description="Answers a step: the group size G.")
    temperature: float = Field(
        default=1.0, ge=0, description="Sampling temperature; log-probabilities are taken at the same one."
    )
    max_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens; a longer one is cut and invalid.")
    vllm: VllmSection = Field(default=VllmSection(), description="Options of the engines vllm and vllm-server.")

    @model_validator(mode="after")
    def _options_are_the_engines(self) -> SamplingSection:
        known = {"transformers": (), "vllm-server": (*_SERVER_OPTIONS, "dtype")}.get(
            self.engine, [name for name in VllmSection.model_fields if name not in _SERVER_OPTIONS]
        )
        foreign = [f"vllm.{name}" for name in self.vllm.set_to() if name not in known]
        if foreign:
            raise ValueError(f"engine {self.engine!r} does not take {', '.join(foreign)}")
        if self.engine == "vllm-server" and not (self.vllm.url or "").startswith(("http://", "https://")):
            raise ValueError("engine 'vllm-server' needs vllm.url, for example http://127.0.0.1:8000")
        return self


Figure = Literal["mean_reward", "format_validity", "mean_similarity", "mean_similarity_valid", "tool_accuracy"]
"""What an evaluation measures; the higher the better."""


class EvaluationSection(Section):
    """Greedy evaluation on the held-out steps, before training and after stages."""

    enabled: bool = Field(default=True, description="Evaluate at all; without held-out steps there is nothing to evaluate.")
    each_stage: bool = Field(default=True, description="Also evaluate between stages.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest answer, in tokens; absent: as in sampling.")
    every: int | None = Field(default=None, ge=1, description="Also evaluate after every so many updates of a stage.")
    best: Figure | None = Field(
        default=None, description="Keep the weights of the evaluation in which this figure was highest, in checkpoint-best/."
    )
    patience: int | None = Field(
        default=None, ge=1, description="End a stage after this many evaluations in a row without a new best."
    )

    @model_validator(mode="after")
    def _best_has_a_use(self) -> EvaluationSection:
        if not self.enabled and (self.best is not None or self.every is not None):
            raise ValueError("every and best need evaluations: leave enabled at true")
        if self.patience is not None and (self.best is None or self.every is None):
            raise ValueError("patience needs best and every: it counts evaluations between updates without a new best")
        return self


class CheckpointSection(Section):
    """What a killed run can be continued from."""

    every: int = Field(default=10, ge=0, description="Save after every so many updates of the run; 0: only when it is stopped.")
    keep: int = Field(default=1, ge=1, description="How many of the newest are kept until the run is finished.")


class TrackingSection(Section):
    """Where metrics go besides metrics.jsonl and the terminal."""

    trackers: list[str] = Field(default=[], description="accelerate's trackers by name, for example tensorboard or wandb.")
    project: str = Field(default="swe-srl", min_length=1, description="The project's name, for trackers that group runs by it.")


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
    order: Literal["steps", "trajectories"] = Field(
        default="steps",
        description="steps: every step in random order; trajectories: random trajectories, the steps of each in a row: "
        "a tree then shares most of their tokens.",
    )
    engine: Literal["auto", "tree", "separate"] = Field(
        default="auto",
        description="tree computes what the samples of a batch share once; separate takes each alone; auto is tree wherever it "
        "is exact for the model, and says so.",
    )

    from_best: bool = Field(default=False, description="Start from the best weights so far (evaluation.best), not the last.")

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
    std_normalisation: bool = Field(default=True, description="Divide advantages by the group's standard deviation.")
    policy_loss: Literal["clip", "cispo"] = Field(
        default="clip",
        description="clip: the smaller of plain and clipped ratio times the advantage; cispo: the log-probability times the "
        "clipped ratio and the advantage, so that a clipped token still has a gradient.",
    )
    importance: Literal["token", "sequence"] = Field(
        default="token", description="Ratios by token, or GSPO's one ratio a sample; sequence needs aggregation sequence."
    )
    clip_low: float = Field(
        default=0.2, gt=0, le=1, description="Ratios are clipped below 1 - this (1: no bound); idle at one update a batch."
    )
    clip_high: float = Field(default=0.2, gt=0, description="Ratios are clipped above 1 + this; idle at one update a batch.")
    aggregation: Literal["sequence", "token", "constant"] = Field(
        default="sequence",
        description="sequence: a mean over each sample's tokens, then over samples; token: a mean over all the batch's tokens; "
        "constant: their sum, divided by the number of samples times sampling.max_tokens.",
    )
    kl_coefficient: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the KL to the reference: the policy without its adapter, or as the stage found it.",
    )
    kl_estimator: Literal["k3", "k2"] = Field(default="k3", description="How the KL is estimated; idle at kl_coefficient 0.")
    mini_batches: int = Field(
        default=1, ge=1, description="Parts of whole steps that a batch is cut into; each is an update of its own."
    )
    passes: int = Field(default=1, ge=1, description="How often a batch is gone through.")
    mismatch: Literal["none", "token", "sequence"] = Field(
        default="none",
        description="Weights by the trainer's probability over the sampler's: token clamps each token's ratio to the next two "
        "options; sequence takes the ratio of whole samples, and leaves out those outside of them.",
    )
    mismatch_low: float = Field(default=0.0, ge=0, description="Lower bound of the correction's ratio; idle at mismatch none.")
    mismatch_high: float = Field(default=2.0, gt=0, description="Upper bound of the correction's ratio; idle at mismatch none.")
    epsilon: float = Field(
        default=0.01, ge=0, description="Dynamic sampling keeps a group if the population std of its rewards is above this."
    )
    max_refills: int = Field(default=4, ge=0, description="Draws that replace dropped groups, at most.")
    exhausted: Literal["use", "skip", "stop"] = Field(
        default="use",
        description="What is done where the refills did not fill a batch: use what there is, skip the update, or stop the run.",
    )

    @model_validator(mode="after")
    def _variants_fit(self) -> SrlStage:
        if self.importance == "sequence" and self.aggregation != "sequence":
            raise ValueError(
                'importance = "sequence" needs aggregation = "sequence": sums over tokens would weight one ratio by its length'
            )
        if self.importance == "sequence" and self.policy_loss == "cispo":
            raise ValueError('policy_loss = "cispo" weights tokens one by one: it needs importance = "token"')
        if self.mini_batches > self.steps_per_update:
            raise ValueError("mini_batches cannot be more than steps_per_update: a part holds one step at least")
        if self.mismatch_low >= self.mismatch_high:
            raise ValueError("mismatch_low must be less than mismatch_high")
        return self


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
    checkpoints: CheckpointSection = CheckpointSection()
    tracking: TrackingSection = TrackingSection()
    stages: list[Stage] = Field(min_length=1, description="What is done, in order; each an `sft` or `srl` stage.")

    @model_validator(mode="after")
    def _groups_can_differ(self) -> Recipe:
        if any(stage.objective == "srl" for stage in self.stages):
            if self.sampling.samples < 2:
                raise ValueError("an srl stage needs sampling.samples of at least 2: a group of one has no variance")
            if self.sampling.temperature == 0:
                raise ValueError("an srl stage needs sampling.temperature above 0: greedy samples do not differ")
        return self

    @model_validator(mode="after")
    def _there_is_a_best(self) -> Recipe:
        if self.stages[0].from_best:
            raise ValueError("the first stage cannot start from_best: nothing was trained before it")
        if self.evaluation.best is None and any(stage.from_best for stage in self.stages):
            raise ValueError("from_best needs evaluation.best: name the figure that decides which weights are best")
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
