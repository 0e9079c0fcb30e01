"""Which engine a stage trains with.

Invariant: what `engine` asks for is done or refused by name; `auto` says in words what it chose and why.
"""

from __future__ import annotations

from typing import Any

from swe_srl.config import Stage
from swe_srl.errors import UserError
from swe_srl.training.logprobs import Engine, SequenceEngine
from swe_srl.training.tree.check import CheckedTreeEngine
from swe_srl.training.tree.engine import TreeEngine
from swe_srl.training.tree.families import why_not


def engine_for(stage: Stage, model: Any, temperature: float) -> tuple[Engine, str]:
    """The engine, and one line about it for a person. Raises UserError for a tree that the model does not allow."""
    reason = why_not(model) if stage.engine != "separate" else 'engine = "separate"'
    if reason is None:
        return CheckedTreeEngine(TreeEngine(stage.tokens_per_microbatch, temperature)), "trains each batch as one tree"
    if stage.engine == "tree":
        raise UserError(f'engine = "tree" does not serve this model: {reason}. Use "auto" or "separate"')
    return SequenceEngine(stage.tokens_per_microbatch, temperature), f"trains separate sequences: {reason}"
