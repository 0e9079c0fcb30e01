"""What two actions did in the same state: reads compared by what they showed, writes by what they changed.

Invariant: pure. The value is in [0, 1], or None where neither action left anything to compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from swe_srl.environments.normalise import normalise, unordered
from swe_srl.rewards.patches import Changes, Hunk, changes_similarity, read_patch
from swe_srl.rewards.text import similarity

CAP = 8000
"""Characters of an observation that are compared; see `similarity`'s cap."""
OTHER_END = 0.5
"""Factor where one action succeeded and the other failed, or they left a shell that stays alive in different states."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What an action did in a fork of the state before a step."""

    patch: str
    """What it changed in the repository: `git diff --unified=0`, new files included, ignored ones not."""
    observation: str
    """What the agent would have seen of it."""
    returncode: int | None
    """Exit status, where the scaffold shows one."""
    timed_out: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    """Files it wrote outside the repository, and those that the repository ignores, by path."""
    session: str = ""
    """Directory and variables it left, where the shell stays alive and they changed."""
    seconds: float = 0.0
    """What its commands took."""

    @property
    def wrote(self) -> bool:
        """Whether it changed any file."""
        return bool(self.patch.strip() or self.files)

    def to_json(self) -> dict[str, Any]:
        """The effect as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Effect:
        """The effect of `to_json`. Raises TypeError for anything else."""
        return cls(**data)


def effect_similarity(expert: Effect, sample: Effect) -> float | None:
    """How alike what they did is.

    Where either changed files: the changes' similarity, so that a write and a read are worth 0. Where neither did: the
    similarity of what they showed, after replay's rules for what may differ, 1.0 where only the order of lines differs. Halved
    where only one of them succeeded, or the next command would start in another directory or with other variables. A sample
    that was killed at its time-out is worth 0. None where there is nothing to compare: the expert's own action was killed, or
    neither changed or showed anything and both ended alike.
    """
    if expert.timed_out:
        return None
    if sample.timed_out:
        return 0.0
    alike = _succeeded(expert) == _succeeded(sample) and expert.session == sample.session
    factor = 1.0 if alike else OTHER_END
    if expert.wrote or sample.wrote:
        return factor * _written(expert, sample)
    ours, theirs = normalise(expert.observation), normalise(sample.observation)
    if not ours and not theirs:
        return factor if expert.session or not alike else None
    if ours == theirs or unordered(ours) == unordered(theirs):
        return factor
    return factor * similarity(ours, theirs, cap=CAP)


def _written(expert: Effect, sample: Effect) -> float:
    if expert.patch == sample.patch and expert.files == sample.files:
        return 1.0
    try:
        return changes_similarity(_changes(expert), _changes(sample))
    except ValueError:  # a patch that was too long, or of a repository that git cannot read any more
        return similarity(expert.patch, sample.patch, cap=CAP)


def _changes(effect: Effect) -> Changes:
    outside = {path: [Hunk(content, 1, 1)] for path, content in effect.files.items()}
    return {**read_patch(effect.patch), **outside}


def _succeeded(effect: Effect) -> bool:
    return effect.returncode in (0, None)
