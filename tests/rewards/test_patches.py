from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.rewards import similarity
from swe_srl.rewards.patches import ELSEWHERE, Hunk, changes_similarity, read_patch

BEFORE = "".join(f"line {number}\n" for number in range(1, 41))


def patch(folder: Path, files: dict[str, str | None], before: dict[str, str] | None = None) -> str:
    """What git says of a change from `before` to `files` (None: removed)."""

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout

    folder.mkdir(exist_ok=True)
    git("init", "-q")
    for name, text in (before or {"a.py": BEFORE, "b.py": BEFORE}).items():
        (folder / name).write_text(text)
    git("add", "-A")
    git("commit", "-qm", "before")
    for name, content in files.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    git("add", "-A")
    return git("diff", "--cached", "--unified=0", "--no-renames", "--full-index")


def test_hunks_are_the_changed_lines_and_their_place(tmp_path: Path) -> None:
    changed = BEFORE.replace("line 5\n", "five\n").replace("line 20\n", "").replace("line 30\n", "line 30\nmore\n")
    assert read_patch(patch(tmp_path / "r", {"a.py": changed})) == {
        "a.py": [Hunk("-line 5\n+five\n", 5, 5), Hunk("-line 20\n", 20, 20), Hunk("+more\n", 30, 30)]
    }


def test_what_has_no_lines_is_said_in_gits_words(tmp_path: Path) -> None:
    found = read_patch(patch(tmp_path / "r", {"empty": "", "b.py": None, "bytes": "\0\1"}))
    assert found["empty"] == [Hunk("new file mode 100644\n", 0, 0)]
    assert [hunk.text for hunk in found["b.py"]][-1] == "deleted file mode 100644\n"
    assert found["bytes"][-1].text.startswith("new file mode 100644\n")


def test_a_text_that_is_no_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="not a patch"):
        read_patch("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n")


CHANGE = {"a.py": [Hunk("-x\n+y\n", 5, 5), Hunk("+more\n", 30, 30)], "b.py": [Hunk("-gone\n", 7, 7)]}


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (CHANGE, 1.0),
        ({name: hunks[::-1] for name, hunks in reversed(CHANGE.items())}, 1.0),
        ({}, 0.0),
        ({"c.py": CHANGE["a.py"]}, 0.0),
        # of 4 and 3 lines 3 and 3 are equal
        ({"a.py": CHANGE["a.py"]}, 6 / 7),
        # the same lines elsewhere in the file: half of 2 x 1 line, and 2 x 3 whole
        ({**CHANGE, "b.py": [Hunk("-gone\n", 20, 20)]}, (6 + 2 * ELSEWHERE) / 8),
        ({**CHANGE, "b.py": [Hunk("-go\n", 7, 7)]}, (6 + 2 * similarity("-gone\n", "-go\n")) / 8),
        # all of it and as much again
        ({**CHANGE, "d.py": [Hunk("+1\n+2\n+3\n+4\n", 1, 1)]}, 8 / 12),
    ],
)
def test_how_much_of_a_change_is_the_same(sample: dict[str, list[Hunk]], value: float) -> None:
    assert changes_similarity(CHANGE, sample) == pytest.approx(value)
    assert changes_similarity(sample, CHANGE) == pytest.approx(value)


def test_one_change_written_in_two_ways_is_equal(tmp_path: Path) -> None:
    one = patch(tmp_path / "r", {"a.py": BEFORE.replace("line 5", "five"), "b.py": BEFORE + "end\n"})
    two = patch(tmp_path / "s", {"b.py": BEFORE + "end\n", "a.py": BEFORE.replace("line 5", "five")})
    assert changes_similarity(read_patch(one), read_patch(two)) == 1.0


def test_very_many_hunks_are_bounded() -> None:
    ours = {"a": [Hunk(f"+{number}\n", number, number) for number in range(3000)]}
    theirs = {"a": [Hunk(f"+{number}\n", number, number) for number in range(1500)] + [Hunk("+x\n", 1, 1)] * 1500}
    assert changes_similarity(ours, theirs) == 0.5


hunks = st.lists(
    st.builds(Hunk, st.sampled_from(["-a\n", "+b\n", "-a\n+b\n", "+c\n+d\n"]), st.integers(1, 9), st.integers(9, 12)),
    max_size=4,
)
changes = st.dictionaries(st.sampled_from(["a", "b", "c"]), hunks, max_size=3)


@given(changes, changes)
def test_the_value_is_in_range_and_one_for_equal_changes(one: dict[str, list[Hunk]], two: dict[str, list[Hunk]]) -> None:
    assert 0.0 <= changes_similarity(one, two) <= 1.0
    assert changes_similarity(one, one) == pytest.approx(1.0)
