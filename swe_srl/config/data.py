"""What a policy learns from and how a step becomes a prompt.

Invariant: the split is by task; a bound or budget that would do nothing is refused.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from swe_srl.config.section import Section
from swe_srl.scaffolds.kinds import KINDS, Kind


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
