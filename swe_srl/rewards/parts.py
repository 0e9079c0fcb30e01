"""The text rewards that an audit compares, by name.

Invariant: pure; each is a reward of a recipe with its defaults, or with the one option its name gives.
"""

from __future__ import annotations

from swe_srl.config import FunctionalReward, SimilarityReward
from swe_srl.rewards.compose import functional_part, similarity_part
from swe_srl.rewards.reward import Part


def text_parts() -> dict[str, Part]:
    """similarity as in the paper, of tokens, of the arguments; functional, continuous and binary."""
    return {
        "similarity": similarity_part(SimilarityReward()),
        "similarity (tokens)": similarity_part(SimilarityReward(unit="token")),
        "similarity (arguments)": similarity_part(SimilarityReward(compare="arguments")),
        "functional": functional_part(FunctionalReward()),
        "functional (≥ 0.8)": functional_part(FunctionalReward(threshold=0.8)),
    }
