import pytest

from gridtext import display_width, pad, truncate, wrap


def test_display_width_of_wide_and_combining_characters():
    assert display_width("abc") == 3
    assert display_width("東京") == 4
    assert display_width("e\u0301") == 1


def test_pad():
    assert pad("ab", 5) == "ab   "
    assert pad("ab", 5, "right") == "   ab"
    assert pad("ab", 5, "center") == " ab  "
    assert pad("東京", 6, "right") == "  東京"
    with pytest.raises(ValueError):
        pad("ab", 5, "middle")


def test_truncate():
    assert truncate("gasket", 6) == "gasket"
    assert truncate("gaskets", 6) == "gaske…"
    assert truncate("gaskets", 6, marker="..") == "gask.."


def test_wrap():
    assert wrap("one two three", 8) == ["one two", "three"]
    assert wrap("a abcdefgh", 3) == ["a", "abc", "def", "gh"]
    assert wrap("one\n\ntwo", 8) == ["one", "", "two"]
