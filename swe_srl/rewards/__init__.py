"""How good an answer is."""

from swe_srl.rewards.reward import INVALID, RewardedAnswer, score_answer
from swe_srl.rewards.text import similarity

__all__ = ["INVALID", "RewardedAnswer", "score_answer", "similarity"]
