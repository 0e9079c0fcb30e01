from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards import similarity
from swe_srl.rewards.text import Unit, similarities


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


@given(texts, texts, st.sampled_from(["character", "token", "line"]), st.booleans())
def test_every_unit_is_difflibs_over_that_unit(expert: str, sample: str, unit: Unit, autojunk: bool) -> None:
    cut: dict[str, Callable[[str], list[str]]] = {
        "character": list,
        "token": re.compile(r"\w+|\s+|[^\w\s]").findall,
        "line": lambda text: text.splitlines(keepends=True),
    }
    expected = SequenceMatcher(None, cut[unit](expert), cut[unit](sample), autojunk=autojunk).ratio()
    assert similarity(expert, sample, unit=unit, autojunk=autojunk) == expected


@pytest.mark.parametrize(
    ("unit", "value"),
    [("character", 2 * 6 / 18), ("token", 2 * 2 / 6), ("line", 0.0)],
)
def test_what_a_unit_is(unit: Unit, value: float) -> None:
    assert similarity("sed file1", "cat file1", unit=unit) == value


@given(texts, texts, st.integers(300, 400))
def test_a_cap_that_both_texts_keep_changes_nothing(expert: str, sample: str, cap: int) -> None:
    assert similarity(expert, sample, cap=cap) == similarity(expert, sample)


@pytest.mark.parametrize(
    ("expert", "sample", "value"),
    [
        # Beyond the cap: the common ends match whole, what lies between up to the cap.
        ("a" * 50, "a" * 50, 1.0),
        ("x" * 20 + "1" + "y" * 20, "x" * 20 + "2" + "y" * 20, 2 * 40 / 82),
        ("abcdefgh", "12345678" + "z" * 8, 0.0),
        ("1abcd" + "efgh", "2" + "q" * 30 + "abcdefgh", 2 * 8 / (9 + 39)),
        ("[" + "ab" * 10 + "]", "{" + "ab" * 30 + "}", 2 * 3 / (22 + 62)),
    ],
)
def test_beyond_a_cap_of_four(expert: str, sample: str, value: float) -> None:
    assert similarity(expert, sample, cap=4) == value


@given(texts, texts, st.integers(1, 50))
def test_a_cap_never_takes_a_value_out_of_its_range(expert: str, sample: str, cap: int) -> None:
    assert 0.0 <= similarity(expert, sample, cap=cap) <= 1.0
    assert similarity(expert, expert, cap=cap) == 1.0


def test_several_processes_give_the_same_values_in_the_same_order() -> None:
    pairs = [("ls -l", "ls -la"), ("", "a"), ("abcd", "bcde"), ("tide", "diet"), ("diet", "tide")] * 3
    assert similarities(pairs, processes=2) == similarities(pairs) == [similarity(*pair) for pair in pairs]


def test_many_pairs_take_the_options_of_one() -> None:
    pairs = [("sed file1", "cat file1"), ("a\nb\n", "a\nc\n")]
    assert similarities(pairs, unit="line") == [0.0, 0.5]
