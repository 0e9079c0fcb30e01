"""Where a sampled action differs from the expert's, as pieces of text.

Invariant: the pieces of a text, joined, are that text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

_WORD = re.compile(r"\w+|\s+|[^\w\s]")


class Piece(NamedTuple):
    """A stretch of text that is the same in the expert's action, or is not."""

    text: str
    differs: bool


def pieces(expert: str, sample: str) -> list[Piece]:
    """The sample cut into stretches that the expert's action shares and stretches it does not.

    Words, runs of space and single signs are compared whole: characters would mark half of every changed word.
    """
    expert_words, words = _WORD.findall(expert), _WORD.findall(sample)
    matcher = SequenceMatcher(None, expert_words, words, autojunk=False)
    return _joined([Piece("".join(words[low:high]), tag != "equal") for tag, _, _, low, high in matcher.get_opcodes()])


def _joined(found: Sequence[Piece]) -> list[Piece]:
    merged: list[Piece] = []
    for piece in found:
        if not piece.text:
            continue
        if merged and merged[-1].differs == piece.differs:
            merged[-1] = Piece(merged[-1].text + piece.text, piece.differs)
        else:
            merged.append(piece)
    return merged
