"""How hard each step is for some policy, and which steps are kept by it.

Invariant: a step is known by its content (the prompt's token ids and the expert's action), so a profile made with another
tokenizer, prompt or trajectory never speaks of it. `profiling.py` makes profiles.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from swe_srl.config import DifficultySection
from swe_srl.errors import UserError


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What a policy earned at one step."""

    content: str
    """See `content_key`."""
    rewards: tuple[float, ...]
    """One a sample."""
    valid: int
    """How many samples were well formatted."""

    @property
    def mean(self) -> float:
        """Mean reward."""
        return fmean(self.rewards)

    @property
    def std(self) -> float:
        """Population standard deviation of the rewards: what dynamic sampling looks at."""
        return pstdev(self.rewards)

    def to_json(self) -> dict[str, Any]:
        """One line of a profile."""
        figures = {"samples": len(self.rewards), "valid": self.valid, "mean": self.mean, "std": self.std}
        return {"content": self.content, **figures, "rewards": list(self.rewards)}


def content_key(prompt_ids: Sequence[int], expert: str) -> str:
    """The name of a step as it is served and rewarded."""
    return hashlib.sha256(array("i", prompt_ids).tobytes() + b"\0" + expert.encode()).hexdigest()[:32]


def read_profile(path: Path) -> dict[str, Difficulty]:
    """A profile by content; empty where the file holds no line. A last line that was not finished is left out.

    Raises UserError for a file that cannot be read or a line that is no difficulty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; `swe-srl profile` makes it") from error
    found = {}
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            row = json.loads(line)
            difficulty = Difficulty(str(row["content"]), tuple(map(float, row["rewards"])), int(row["valid"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a line of a profile; make it again with `swe-srl profile`") from error
        found[difficulty.content] = difficulty
    return found


def write_profile(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a profile in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, path)


def against(difficulty: Difficulty | None, options: DifficultySection) -> str | None:
    """Why a step is not kept; None where it is."""
    if difficulty is None:
        return f"difficulty: the step, prompted like this, is not in {options.file}"
    if options.min_std is not None and difficulty.std < options.min_std:
        return f"difficulty: the rewards' std is below {options.min_std}"
    if options.min_mean is not None and difficulty.mean < options.min_mean:
        return f"difficulty: the mean reward is below {options.min_mean}"
    if options.max_mean is not None and difficulty.mean > options.max_mean:
        return f"difficulty: the mean reward is above {options.max_mean}"
    return None
