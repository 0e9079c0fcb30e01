"""Text similarity of the arguments of two actions, without the tags they are written in.

Two different commands in the same tags share the tags: as texts they score high. Here only what the arguments say counts.
Invariant: for one call with one argument each, the value is `similarity` of the two arguments' texts.
"""

from __future__ import annotations

import json
from typing import Any

from swe_srl.rewards.matching import best_pairs
from swe_srl.rewards.text import Match, Unit, match
from swe_srl.scaffolds.base import Action, ToolCall


def arguments_similarity(
    expert: Action, sample: Action, *, unit: Unit = "character", autojunk: bool = False, cap: int | None = None
) -> float:
    """2M / T in [0, 1] over the arguments of the actions' calls, matched and unmatched added up over all fields.

    A call of another tool is worth 0, an argument that only one side gives is unmatched, and a call of the same tool in which
    neither gives any is worth 1. Values that are no text are compared as JSON. Several calls are matched one to one, and the
    values of the pairs are averaged over the larger number of calls.
    """
    if not expert.calls or not sample.calls:
        return float(not expert.calls and not sample.calls)

    def value(ours: ToolCall, theirs: ToolCall) -> float:
        if ours.name != theirs.name:
            return 0.0
        keys = [*ours.arguments, *(key for key in theirs.arguments if key not in ours.arguments)]
        texts = [(_text(ours.arguments.get(key)), _text(theirs.arguments.get(key))) for key in keys]
        matches = [match(*pair, unit=unit, autojunk=autojunk, cap=cap) for pair in texts]
        return Match(sum(m.matched for m in matches), sum(m.total for m in matches)).ratio

    pairs = best_pairs(expert.calls, sample.calls, value)
    return sum(value for _, _, value in pairs) / max(len(expert.calls), len(sample.calls))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
