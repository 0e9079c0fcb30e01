"""How good an answer is."""

from swe_srl.rewards.arguments import arguments_similarity
from swe_srl.rewards.effect import Effect, effect_similarity
from swe_srl.rewards.functional import functional
from swe_srl.rewards.outcome import Outcome, outcome
from swe_srl.rewards.reward import RewardedAnswer, score_answer
from swe_srl.rewards.text import similarity
from swe_srl.rewards.validity import INVALID, invalid_reward

__all__ = [
    "INVALID",
    "Effect",
    "Outcome",
    "RewardedAnswer",
    "arguments_similarity",
    "effect_similarity",
    "functional",
    "invalid_reward",
    "outcome",
    "score_answer",
    "similarity",
]
