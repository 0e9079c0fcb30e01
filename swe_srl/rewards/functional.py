"""Whether two actions mean the same: category, then target, then fields (after PivotRL, arXiv 2603.21383).

Invariant: pure and symmetric in nothing but equality; in [0, 1], and 1.0 for an action and itself.
"""

from __future__ import annotations

from swe_srl.rewards.arguments import arguments_similarity
from swe_srl.rewards.matching import best_pairs
from swe_srl.rewards.operations import Field, Lines, Operation, operations
from swe_srl.rewards.text import similarity
from swe_srl.scaffolds.base import Action

CAP = 2000
"""Characters of a field that are compared; see `similarity`'s cap."""
MOST_OPERATIONS = 32
"""Of an action that are matched."""
_OPEN_END = 1000
_OPEN_MORE = 200


def functional(expert: Action, sample: Action, *, threshold: float | None = None, workdir: str = "/testbed") -> float:
    """How much of what the expert does the sample does, in [0, 1].

    Operations of different categories are worth 0. Else the value is the share of targets that both name (intersection over
    union) times the least of the fields' similarities. Operations, of one call or of several, are matched one to one, and the
    values of the pairs are averaged over the larger number of operations. Of more than 32 only the first 32 are matched; all
    count. Where the expert's command does not parse, the arguments are compared as texts; where only the sample's does not, the
    value is 0.

    Args:
        threshold: 1.0 from this value on and 0.0 below (PivotRL takes 0.8); None for the value itself.
        workdir: the repository's directory, from which paths are resolved.
    """
    ours, theirs = operations(expert, workdir), operations(sample, workdir)
    if expert.calls == sample.calls:
        value = 1.0
    elif ours is None:
        value = arguments_similarity(expert, sample, cap=CAP)
    elif not ours or not theirs:
        value = float(not ours and theirs == [])
    else:
        pairs = best_pairs(ours[:MOST_OPERATIONS], theirs[:MOST_OPERATIONS], operation_similarity)
        value = sum(value for _, _, value in pairs) / max(len(ours), len(theirs))
    return value if threshold is None else float(value >= threshold)


def operation_similarity(expert: Operation, sample: Operation) -> float:
    """The value of one pair of operations, in [0, 1]."""
    if expert.category != sample.category:
        return 0.0
    both, either = expert.targets & sample.targets, expert.targets | sample.targets
    if either and not both:
        return 0.0
    shared = len(both) / len(either) if either else 1.0
    return shared * min([_fields(expert, sample, key) for key in sorted({*expert.fields, *sample.fields})], default=1.0)


def _fields(expert: Operation, sample: Operation, key: str) -> float:
    ours, theirs = expert.fields.get(key), sample.fields.get(key)
    if expert.category == "edit":
        if key == "lines" and (ours is None or theirs is None):
            return 1.0  # an edit by its text need not name lines
        if ours is None or theirs is None:
            return similarity(_joined(expert), _joined(sample), cap=CAP)
    return _field(ours, theirs)


def _field(ours: Field | None, theirs: Field | None) -> float:
    if ours == theirs:
        return 1.0
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return _overlap(ours, theirs)
    if isinstance(ours, tuple) or isinstance(theirs, tuple):
        return 0.0
    if isinstance(ours, frozenset) or isinstance(theirs, frozenset):
        first, second = frozenset(ours or ()), frozenset(theirs or ())
        return len(first & second) / len(first | second) if first | second else 1.0
    return similarity(ours or "", theirs or "", cap=CAP)


def _overlap(ours: Lines, theirs: Lines) -> float:
    """Intersection over union of two ranges of lines. An open end is line 1000, or 200 lines after the beginning."""
    if (ours[0] < 0) != (theirs[0] < 0):
        return 0.0
    if ours[0] < 0:
        return max(ours[0], theirs[0]) / min(ours[0], theirs[0])
    ends = [max(_OPEN_END, first + _OPEN_MORE) if last is None else max(first, last) for first, last in (ours, theirs)]
    common = min(ends) - max(ours[0], theirs[0]) + 1
    return max(0, common) / (max(ends) - min(ours[0], theirs[0]) + 1)


def _joined(operation: Operation) -> str:
    return "\n".join(value for _, value in sorted(operation.fields.items()) if isinstance(value, str))
