"""What two honest runs may differ in is masked, each by a named rule; what tells something about the repository is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swe_srl.environments.normalise import RULES, normalise, unordered

DOCS = Path(__file__).parents[2] / "docs" / "replay.md"

MASKED = {
    "line endings": ("one\r\ntwo\r\r\nthree", "one\ntwo\nthree"),
    "addresses": ("<Box object at 0x7f3a9c0d1e50>", "<Box object at 0xADDRESS>"),
    "durations": ("3 passed in 0.02s", "3 passed in DURATION"),
    "duration padding": ("======= 3 passed ======", "=== 3 passed ==="),
    "clock times": ("at 2024-10-24 09:15:02,123 +0200 it ran", "at TIME it ran"),
    "temporary names": ("in /tmp/tmpab12cd34/x and /tmp/repro-k3j4h5g6", "in /tmp/NAME/x and /tmp/NAME"),
    "test folders": ("/x/pytest-of-root/pytest-12/test_a0", "/x/pytest-of-USER/pytest-N/test_a0"),
    "virtual environments": ("/opt/venv/lib/a.py /usr/lib/python3.11/b.py", "VENV/lib/a.py VENV/lib/python3.11/b.py"),
    "interpreter versions": ("Python 3.11.7 on python3.9.2", "Python 3.11 on python3.9"),
    "git hashes": ("commit 0123abcdef0123abcdef0123abcdef0123abcdef", "commit HASH"),
    "git abbreviations": ("index 584a12e4f..9aee825b0 100644", "index 584a12e..9aee825 100644"),
    "git logs": ("d00a37f4e Fix the edge", "HASH Fix the edge"),
    "listing metadata": (
        "drwxr-xr-x 3 root root 4096 Oct 24 00:00 src\n-rw-r--r-- 1 root root   27 Oct 24  2024 a.py",
        "drwxr-xr-x root root SIZE DATE src\n-rw-r--r-- root root 27 DATE a.py",
    ),
    "listing totals": ("total 48\na.py", "total N\na.py"),
    "trailing blanks": ("done \n\n", "done"),
}


def test_the_docs_list_exactly_these_rules() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", DOCS.read_text().split("## The rules")[1].split("## ")[0], re.MULTILINE)
    assert rows[2:] == [(rule.name, rule.why) for rule in RULES]


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_every_rule_masks_its_case(name: str) -> None:
    """By the rule itself, and with all the others around it."""
    before, after = MASKED[name]
    rule = next(rule for rule in RULES if rule.name == name)
    assert rule.apply(before) == after
    assert normalise(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("3 passed in 62.31s (0:01:02)", "3 passed in DURATION"),
        ("real\t0m1.204s", "DURATION"),
        ("took 5 seconds, then 12 ms", "took DURATION, then DURATION"),
        ("started 2024-10-24T09:15:02", "started TIME"),
        ("-rw-r--r-- 1 root root 27 2024-10-24 00:00:00.000000000 +0000 a.py", "-rw-r--r-- root root 27 DATE a.py"),
        ("/testbed/.venv/bin/python", "VENV/bin/python"),
        ("HEAD is now at d00a37f4e start", "HEAD is now at HASH start"),
    ],
)
def test_other_forms_of_the_same(before: str, after: str) -> None:
    assert normalise(before) == after


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-rw-r--r-- 1 root root 27 Oct 24 00:00 a.py", "-rw-r--r-- 1 root root 28 Oct 24 00:00 a.py"),
        ("-rw-r--r-- 1 root root 27 Oct 24 00:00 a.py", "-rwxr-xr-x 1 root root 27 Oct 24 00:00 a.py"),
        ("drwxr-xr-x 2 root root 4096 Oct 24 00:00 a", "drwxr-xr-x 2 root root 4096 Oct 24 00:00 b"),
        ("3 passed in 0.02s", "4 passed in 0.02s"),
        ("1 failed, 3 passed in 0.02s", "3 passed in 0.02s"),
        ("ValueError: no such key", "KeyError: no such key"),
        ("exit status 1", "exit status 2"),
        ("Python 3.11.7", "Python 3.9.7"),
        ("1000000 big.bin", "2000000 big.bin"),
        ("index 584a12e4f..9aee825b0", "index 584a12e4f..1aee825b0"),
        ("one\ntwo", "two\none"),
        ("  indented", "indented"),
        ("one\n\ntwo", "one\ntwo"),
        ("a == b", "a = b"),
        ("value 0x10", "value 0x11"),
        ("/tmp/repro.py", "/tmp/other.py"),
        ("line 12 of a.py", "line 13 of a.py"),
    ],
)
def test_what_is_never_masked(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


def test_unordered_sorts_lines_and_keeps_repeated_ones() -> None:
    assert unordered("b\na\nb") == "a\nb\nb"
    assert unordered("a\nb") != unordered("a\nb\nb")


_PIECES = (
    *("tmp", "/tmp/", "/usr", "/opt/venv", "python3.11", "tmpab12cd", "-k3j4h5g6", "s", "12", "3.4", " seconds", " ms", "==="),
    *(
        "commit ",
        "at ",
        "+g",
        "abcdef1",
        "1234567",
        "index ",
        "..",
        "(0:01:02)",
        "real ",
        "0m1s",
        "total ",
        "/lib/python3",
        ".7",
    ),
    *("-rw-r--r-- ", "1 ", "root ", "Oct 24 00:00 ", "2024-10-24 ", "09:15:02", *" \n\r\t-_./:=()0x1as"),
)
_FRAGMENTS = st.sampled_from([*(text for pair in MASKED.values() for text in pair), *_PIECES])


@settings(max_examples=3000, deadline=None)
@example("/tmp/tmpab12cd-k3j4h5g6")
@example("total 1 ")
@example("python3.11.2.3")
@given(st.lists(_FRAGMENTS, max_size=10).map("".join))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
