"""How alike two patches of one state are: file by file, hunk by hunk, in any order.

Invariant: pure; both patches are `git diff --unified=0` against the same files, so places in them can be compared. The value is
in [0, 1], 1.0 for equal changes and 0.0 where no file is common to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swe_srl.rewards.matching import best_pairs
from swe_srl.rewards.text import similarity

MOST_HUNKS = 64
"""Of a file, that are matched by their texts; beyond, only equal ones are."""
ELSEWHERE = 0.5
"""What a hunk is worth at another place of its file."""
CAP = 4000
"""Characters of a hunk that are compared; see `similarity`'s cap."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Changed lines at one place of a file."""

    text: str
    """The lines taken away and added, with their signs."""
    first: int
    last: int
    """The lines of the file before the change that it replaces or stands between."""

    @property
    def lines(self) -> int:
        """How many lines it changes, at least one."""
        return max(1, self.text.count("\n"))


Changes = Mapping[str, Sequence[Hunk]]
"""Hunks by file."""


def read_patch(patch: str) -> dict[str, list[Hunk]]:
    """The hunks of a git patch, by file. Raises ValueError where it is none.

    What has no lines (an empty new file, a binary file, a mode) is one hunk that holds git's own words for it.
    """
    from unidiff import PatchSet, UnidiffParseError

    try:
        parsed = PatchSet(patch)
    except (UnidiffParseError, ValueError, IndexError) as error:
        raise ValueError(f"not a patch: {error}") from error
    if not parsed and patch.strip():
        raise ValueError(f"not a patch: {patch.strip()[:80]!r}")
    changes: dict[str, list[Hunk]] = {}
    for file in parsed:
        hunks = [
            Hunk(
                "".join(_signed(str(line)) for line in hunk),
                hunk.source_start,
                hunk.source_start + max(0, hunk.source_length - 1),
            )
            for hunk in file
        ]
        said = [line for line in str(file.patch_info or "").splitlines() if line.startswith(_SAID)]
        if said or not hunks:
            said = said or [line for line in str(file.patch_info or "").splitlines() if line.startswith("index ")]
            hunks.append(Hunk("\n".join(said) + "\n", 0, 0))
        changes.setdefault(file.path, []).extend(hunks)
    return changes


def changes_similarity(expert: Changes, sample: Changes) -> float:
    """The share of the changed lines of both that match, weighted by how alike their hunks are.

    Hunks of a file are matched one to one. A pair is worth the similarity of its texts, half of it where the two replace
    different lines. Nothing changed by either is worth 1.0.
    """
    total = sum(hunk.lines for changes in (expert, sample) for hunks in changes.values() for hunk in hunks)
    matched = sum(_matched(expert[path], sample[path]) for path in expert.keys() & sample.keys())
    return min(1.0, matched / total) if total else 1.0


def _matched(ours: Sequence[Hunk], theirs: Sequence[Hunk]) -> float:
    """Lines of both that match, weighted."""
    common = Counter(ours) & Counter(theirs)
    matched = float(sum(2 * hunk.lines * count for hunk, count in common.items()))
    left, right = (list((Counter(hunks) - common).elements()) for hunks in (ours, theirs))
    if max(len(left), len(right)) > MOST_HUNKS:
        return matched
    return matched + sum(value for _, _, value in best_pairs(left, right, _worth))


def _worth(ours: Hunk, theirs: Hunk) -> float:
    same_place = ours.first <= theirs.last + 1 and theirs.first <= ours.last + 1
    alike = similarity(ours.text, theirs.text, cap=CAP)
    return alike * (ours.lines + theirs.lines) * (1.0 if same_place else ELSEWHERE)


_SAID = ("new file", "deleted file", "old mode", "new mode", "Binary files", "GIT binary")


def _signed(line: str) -> str:
    return line if line.endswith("\n") else line + "\n"
