"""The one typed configuration of a run: a file a part, all of it importable from here.

Invariant: nothing here imports torch. Paths in a recipe are relative to the current working directory, not to the recipe's
file.
"""

from swe_srl.config.agent import AgentConfig
from swe_srl.config.data import DataSection, DifficultySection, PromptSection
from swe_srl.config.model import LoraSection, ModelSection
from swe_srl.config.outcome import CurriculumSection, OutcomeStage, StartSection
from swe_srl.config.plan import PlanSection, SizesSection
from swe_srl.config.recipe import Recipe, Stage
from swe_srl.config.rewards import EffectReward, FunctionalReward, RewardPart, RewardsSection, SimilarityReward
from swe_srl.config.run import CheckpointSection, ClusterSection, EvaluationSection, Figure, TrackingSection
from swe_srl.config.sampling import SamplingSection, VllmSection
from swe_srl.config.section import Section
from swe_srl.config.stages import PolicyStage, SftStage, SrlStage, StageSection

__all__ = [
    "AgentConfig",
    "CheckpointSection",
    "ClusterSection",
    "CurriculumSection",
    "DataSection",
    "DifficultySection",
    "EffectReward",
    "EvaluationSection",
    "Figure",
    "FunctionalReward",
    "LoraSection",
    "ModelSection",
    "OutcomeStage",
    "PlanSection",
    "PolicyStage",
    "PromptSection",
    "Recipe",
    "RewardPart",
    "RewardsSection",
    "SamplingSection",
    "Section",
    "SftStage",
    "SimilarityReward",
    "SizesSection",
    "SrlStage",
    "Stage",
    "StageSection",
    "StartSection",
    "TrackingSection",
    "VllmSection",
]
