from __future__ import annotations

from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards import similarity


@pytest.mark.parametrize(
    ("expert", "sample", "value"),
    [
        ("", "", 1.0),
        ("", "a", 0.0),
        ("abcd", "abcd", 1.0),
        ("abcd", "bcde", 0.75),
        ("ls", "pwd", 0.0),
        ("ls -l", "ls -la", 10 / 11),
        # Matching is greedy from the longest block, so the order of the arguments matters.
        ("tide", "diet", 0.25),
        ("diet", "tide", 0.5),
    ],
)
def test_known_values(expert: str, sample: str, value: float) -> None:
    assert similarity(expert, sample) == value


def test_frequent_characters_of_long_texts_are_not_junk() -> None:
    expert = "ab" * 150
    sample = "c" + expert[:-1]
    assert similarity(expert, sample) == 299 / 300
    assert SequenceMatcher(None, expert, sample).ratio() == 0.0, "what difflib's default would say"


texts = st.text(alphabet="ab <=/\n", max_size=300) | st.text(max_size=60)


@given(texts, texts)
def test_the_value_is_difflibs_to_the_last_bit(expert: str, sample: str) -> None:
    assert similarity(expert, sample) == SequenceMatcher(None, expert, sample, autojunk=False).ratio()


@given(texts, st.data())
def test_the_value_is_difflibs_for_near_copies(expert: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(expert)))
    sample = expert[:cut] + data.draw(texts) + expert[cut + 3 :]
    assert similarity(expert, sample) == SequenceMatcher(None, expert, sample, autojunk=False).ratio()
