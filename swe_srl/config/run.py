"""What a run does beside learning: evaluate, save, report to trackers.

Invariant: an option whose counterpart is missing is refused.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from swe_srl.config.section import Section

Figure = Literal[
    "mean_reward",
    "format_validity",
    "mean_similarity",
    "mean_similarity_valid",
    "tool_accuracy",
    "target_accuracy",
    "mean_functional",
    "resolved_rate",
]
"""What an evaluation measures; the higher the better. The last is of rollouts on held-out tasks, in outcome stages alone."""


class EvaluationSection(Section):
    """Greedy evaluation on the held-out steps, before training and after stages."""

    enabled: bool = Field(default=True, description="Evaluate at all; without held-out steps there is nothing to evaluate.")
    each_stage: bool = Field(default=True, description="Also evaluate between stages.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest answer, in tokens; absent: as in sampling.")
    every: int | None = Field(default=None, ge=1, description="Also evaluate after every so many updates of a stage.")
    best: Figure | None = Field(
        default=None, description="Keep the weights of the evaluation in which this figure was highest, in checkpoint-best/."
    )
    keep_stages: bool = Field(
        default=False, description="Keep the weights of each evaluation between stages, in checkpoint-stage-NUMBER-OBJECTIVE/."
    )
    patience: int | None = Field(
        default=None, ge=1, description="End a stage after this many evaluations in a row without a new best."
    )

    @model_validator(mode="after")
    def _best_has_a_use(self) -> EvaluationSection:
        if not self.enabled and (self.best is not None or self.every is not None):
            raise ValueError("every and best need evaluations: leave enabled at true")
        if self.keep_stages and not (self.enabled and self.each_stage):
            raise ValueError(
                "keep_stages keeps the weights of evaluations between stages: leave enabled and each_stage at true"
            )
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


class ClusterSection(Section):
    """Where engines that sample, what effect rewards execute, and rollouts of outcome stages run."""

    address: str = Field(
        default="local",
        description="local, ray (that of this machine or RAY_ADDRESS), or ray://HOST:PORT. --cluster comes before it.",
    )
    images: str = Field(
        default="build",
        description="How nodes get images: build, registry:HOST/PATH, or folder:PATH that all share. --images comes before it.",
    )

    @field_validator("address")
    @classmethod
    def _a_cluster(cls, address: str) -> str:
        if not re.fullmatch(r"local|ray|ray://.+", address):
            raise ValueError(f"expected local, ray, or ray://HOST:PORT (given {address!r})")
        return address

    @field_validator("images")
    @classmethod
    def _a_way(cls, images: str) -> str:
        if not re.fullmatch(r"build|registry:.+|folder:.+", images):
            raise ValueError(f"expected build, registry:HOST/PATH, or folder:PATH (given {images!r})")
        return images
