"""What an answer that breaks the format earns.

The format rule is `policy.format.parse_answer`'s: one thought first (1), one action directly after it (2), well-formed (3), of
a known tool with arguments that conform (4), and nothing else (5). The paper gives −1 whatever is broken. Graded, an answer
that keeps more of the rule earns more, so that a policy that never answers validly has something to climb.

Invariant: a broken answer earns less than 0, and so less than any valid one.
"""

from __future__ import annotations

from typing import Literal

from swe_srl.policy.format import Answer

Invalid = Literal["minus-one", "graded"]

INVALID = -1.0
"""Reward of an invalid answer (arXiv 2510.25992)."""

GRADES = {
    "truncated output": -1.0,
    "missing think": -1.0,
    "unclosed think": -1.0,
    "empty think": -1.0,
    "nested think": -1.0,
    "repeated think": -1.0,
    "no action": -0.8,
    "text before the action": -0.8,
    "several actions": -0.8,
    "malformed action": -0.6,
    "unknown tool": -0.4,
    "unknown parameter": -0.4,
    "missing parameter": -0.4,
    "wrong value": -0.4,
    "text after the action": -0.2,
}
"""By kind of error: −1 for the first part of the rule, 0.2 more for each part that is kept before the one that is broken."""


def invalid_reward(answer: Answer, invalid: Invalid = "minus-one") -> float | None:
    """The reward of an invalid answer, None for a valid one. It depends on the kind of error alone."""
    if answer.error_kind is None:
        return None
    return GRADES[answer.error_kind] if invalid == "graded" else INVALID
