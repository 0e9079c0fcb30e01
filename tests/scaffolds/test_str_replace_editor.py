"""The editor that runs inside containers: every subcommand and every refusal, word for word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from swe_srl.scaffolds.tools import str_replace_editor as editor

AS_EXPECTED = "Review the changes and make sure they are as expected. Edit the file again if necessary."
CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. You should retry this tool after "
    "you have searched inside the file with `grep -n` in order to find the line numbers of what you are looking for.</NOTE>"
)


class Editor:
    """Calls on files below a folder; that folder is cut off the paths in the answers."""

    def __init__(self, root: Path) -> None:
        self.root = root / "repo"
        self.state = root / "state"
        self.root.mkdir()

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def __call__(self, command: str, path: str, **more: Any) -> str:
        answer = editor.run({"command": command, "path": f"{self.root}{path}", **more}, self.state)
        return answer.replace(str(self.root), "")

    def refuses(self, command: str, path: str, **more: Any) -> str:
        with pytest.raises(editor.RefusedError) as refused:
            self(command, path, **more)
        return str(refused.value).replace(str(self.root), "")


@pytest.fixture
def edit(tmp_path: Path) -> Editor:
    return Editor(tmp_path)


def letters(n: int) -> str:
    return "".join(f"{chr(96 + i)}\n" for i in range(1, n + 1))


def test_view_a_file(edit: Editor) -> None:
    edit.write("a.txt", "one\n\ttab\n")
    assert edit("view", "/a.txt") == (
        "Here's the result of running `cat -n` on /a.txt:\n     1\tone\n     2\t        tab\n     3\t\n"
    )
    edit.write("empty", "")
    assert edit("view", "/empty") == "Here's the result of running `cat -n` on /empty:\n     1\t\n"


@pytest.mark.parametrize("view_range", [[4, 5], "[4, 5]", [4, -1]])
def test_view_some_lines(edit: Editor, view_range: Any) -> None:
    edit.write("a.txt", "a\nb\nc\nd\ne")
    assert edit("view", "/a.txt", view_range=view_range) == (
        "Here's the result of running `cat -n` on /a.txt:\n     4\td\n     5\te\n"
    )


@pytest.mark.parametrize(
    ("view_range", "message"),
    [
        ([1], "Invalid `view_range`. It should be a list of two integers."),
        ("1 to 2", "Invalid `view_range`. It should be a list of two integers."),
        ([1, "2"], "Invalid `view_range`. It should be a list of two integers."),
        ([0, 2], "Invalid `view_range`: [0, 2]. Its first element `0` should be within the range of lines of the file: [1, 4]"),
        ([5, 6], "Invalid `view_range`: [5, 6]. Its first element `5` should be within the range of lines of the file: [1, 4]"),
        (
            [1, 5],
            "Invalid `view_range`: [1, 5]. Its second element `5` should be smaller than the number of lines in the file: `4`",
        ),
        ([3, 2], "Invalid `view_range`: [3, 2]. Its second element `2` should be larger or equal than its first `3`"),
    ],
)
def test_refused_ranges(edit: Editor, view_range: Any, message: str) -> None:
    edit.write("a.txt", letters(3))
    assert edit.refuses("view", "/a.txt", view_range=view_range) == message


def test_view_a_long_file(edit: Editor) -> None:
    edit.write("a.txt", "x" * 16_000 + "\n")
    assert edit("view", "/a.txt") == (f"Here's the result of running `cat -n` on /a.txt:\n     1\t{'x' * 16_000}{CLIPPED}\n")
    edit.write("b.txt", "x" * 16_000)
    assert edit("view", "/b.txt") == f"Here's the result of running `cat -n` on /b.txt:\n     1\t{'x' * 16_000}\n"


def test_view_a_long_python_file_without_its_long_bodies(edit: Editor) -> None:
    source = (
        "@decorated\n"  # 1
        "async def long(\n    a,\n):\n"
        "    # a comment before the first statement is shown\n"  # 5
        '    """Text.\n\n    More.\n    """\n'  # 6 to 9
        "    def inner():\n        return 1\n"  # 10, 11
        "\n    # after\n"
        "class A:\n    def short(self):\n"  # 14, 15
        "        a\n        b\n        c\n        d\n        e\n"  # 16 to 20
        f"# {'x' * 16_000}"  # 21
    )
    edit.write("a.py", source)
    shown = (
        "     1 @decorated\n     2 async def long(\n     3     a,\n     4 ):\n"
        "     5     # a comment before the first statement is shown\n"
        "     6 ... eliding lines 6-11 ...\n"
        "    12 \n    13     # after\n    14 class A:\n    15     def short(self):\n"
        "    16         a\n    17         b\n    18         c\n    19         d\n    20         e\n"
        f"    21 # {'x' * 16_000}"
    )
    assert edit("view", "/a.py") == (
        "<NOTE>This file is too large to display entirely. Showing abbreviated version. Please use `str_replace_editor view` "
        f"with the `view_range` parameter to show selected lines next.</NOTE>\n{shown[:16_000]}{CLIPPED}\n"
        "<IMPORTANT><NOTE>The above file has been abbreviated. Please use `str_replace editor view` with `view_range` to look "
        "at relevant files in detail.</NOTE></IMPORTANT>"
    )
    edit.write("broken.py", source.replace("class A:", '"""'))
    assert edit("view", "/broken.py").startswith("Here's the result of running `cat -n` on /broken.py:\n     1\t@decorated\n")


def test_view_a_directory(edit: Editor) -> None:
    for path in ("b/c/d/e.txt", "b/.hidden/x", "b/c/y", "a.txt", ".git/config"):
        edit.write(path, "")
    (edit.root / "link").symlink_to(edit.root / "b")
    assert edit("view", "") == (
        "Here's the files and directories up to 2 levels deep in , excluding hidden items:\n\n/a.txt\n/b\n/b/c\n/link\n"
    )
    assert edit("view", "/b/") == (
        "Here's the files and directories up to 2 levels deep in /b, excluding hidden items:\n/b\n/b/c\n/b/c/d\n/b/c/y\n"
    )
    assert edit.refuses("view", "/b", view_range=[1, 2]) == (
        "The `view_range` parameter is not allowed when `path` points to a directory."
    )


def test_create(edit: Editor) -> None:
    assert edit("create", "/new.txt", file_text="a\tb\r\né") == "File created successfully at: /new.txt"
    assert (edit.root / "new.txt").read_bytes() == "a\tb\r\né".encode()
    assert edit.refuses("create", "/new.txt", file_text="") == (
        "File already exists at: /new.txt. Cannot overwrite files using command `create`."
    )
    assert edit.refuses("create", "/no/new.txt", file_text="") == (
        "The parent directory /no does not exist. Please create it first."
    )
    assert edit.refuses("create", "/new.txt/x", file_text="") == (
        "Ran into [Errno 20] Not a directory: '/new.txt/x' while trying to write to /new.txt/x"
    )
    assert edit.refuses("create", "/other.txt") == "Parameter `file_text` is required for command: create"
    assert edit.refuses("undo_edit", "/new.txt") == "No edit history found for /new.txt."


def test_str_replace_shows_four_lines_before_and_three_after(edit: Editor) -> None:
    file = edit.write("a.txt", letters(12))
    assert edit("str_replace", "/a.txt", old_str="g\nh\n", new_str="G\nG2\nH\n") == (
        "The file /a.txt has been edited. Here's the result of running `cat -n` on a snippet of /a.txt:\n"
        "     2\tb\n     3\tc\n     4\td\n     5\te\n     6\tf\n     7\tG\n     8\tG2\n     9\tH\n"
        f"    10\ti\n    11\tj\n    12\tk\n    13\tl\n{AS_EXPECTED}"
    )
    assert file.read_text() == "a\nb\nc\nd\ne\nf\nG\nG2\nH\ni\nj\nk\nl\n"


def test_str_replace_at_the_ends_of_a_file(edit: Editor) -> None:
    edit.write("a.txt", letters(3))
    assert edit("str_replace", "/a.txt", old_str="a\n") == (
        "The file /a.txt has been edited. Here's the result of running `cat -n` on a snippet of /a.txt:\n"
        f"     1\tb\n     2\tc\n{AS_EXPECTED}"
    )
    assert edit("str_replace", "/a.txt", old_str="b\nc\n", new_str="") == (
        "The file /a.txt has been edited. Here's the result of running `cat -n` on a snippet of /a.txt:\n"
        f"     1\t\n{AS_EXPECTED}"
    )


def test_an_edit_expands_tabs_and_line_ends_of_the_whole_file(edit: Editor) -> None:
    file = edit.write("a.txt", "\ta\r\nb\tc\r\n")
    edit("str_replace", "/a.txt", old_str="b\tc", new_str="\td")
    assert file.read_bytes() == b"        a\n        d\n"


def test_an_edit_keeps_encoding_and_mode(edit: Editor) -> None:
    file = edit.write("a.sh", "caf\xe9\n".encode("latin-1"))
    file.chmod(0o750)
    edit("str_replace", "/a.sh", old_str="café", new_str="thé")
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == ("th\xe9\n".encode("latin-1"), 0o750)
    assert edit.refuses("str_replace", "/a.sh", old_str="thé", new_str="茶").startswith("Ran into 'latin-1' codec can't encode")
    assert file.read_bytes() == "th\xe9\n".encode("latin-1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("x", "y", "No replacement was performed, old_str `x` did not appear verbatim in /a.txt."),
        (
            "b",
            "y",
            "No replacement was performed. Multiple occurrences of old_str `b` in lines [2, 3]. Please ensure it is unique",
        ),
        (
            "b\n",
            "y",
            "No replacement was performed. Multiple occurrences of old_str `b\n` in lines []. Please ensure it is unique",
        ),
        ("a", "a", "No replacement was performed, old_str `a` is the same as new_str `a`."),
        (None, "a", "Parameter `old_str` is required for command: str_replace"),
    ],
)
def test_refused_replacements(edit: Editor, old: str | None, new: str, message: str) -> None:
    file = edit.write("a.txt", "a\nb\nbb\n")
    assert edit.refuses("str_replace", "/a.txt", old_str=old, new_str=new) == message
    assert file.read_text() == "a\nb\nbb\n"
    assert edit.refuses("undo_edit", "/a.txt") == "No edit history found for /a.txt."


INSERTED = (
    "Review the changes and make sure they are as expected (correct indentation, no duplicate lines, etc). "
    "Edit the file again if necessary."
)


@pytest.mark.parametrize(
    ("after", "shown", "contents"),
    [
        (0, "     1\tX\n     2\t        Y\n     3\ta\n     4\tb\n     5\tc\n     6\td\n", "X\n        Y\na\nb\nc\nd\ne\nf\n"),
        (
            "5",
            "     2\tb\n     3\tc\n     4\td\n     5\te\n     6\tX\n     7\t        Y\n     8\tf\n     9\t\n",
            "a\nb\nc\nd\ne\nX\n        Y\nf\n",
        ),
        (7, "     4\td\n     5\te\n     6\tf\n     7\t\n     8\tX\n     9\t        Y\n", "a\nb\nc\nd\ne\nf\n\nX\n        Y"),
    ],
)
def test_insert(edit: Editor, after: Any, shown: str, contents: str) -> None:
    file = edit.write("a.txt", letters(6))
    assert edit("insert", "/a.txt", insert_line=after, new_str="X\n\tY") == (
        "The file /a.txt has been edited. Here's the result of running `cat -n` on a snippet of the edited file:\n"
        f"{shown}{INSERTED}"
    )
    assert file.read_text() == contents


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"new_str": "x"}, "Parameter `insert_line` is required for command: insert"),
        ({"insert_line": 1}, "Parameter `new_str` is required for command: insert"),
        (
            {"insert_line": 5, "new_str": "x"},
            "Invalid `insert_line` parameter: 5. It should be within the range of lines of the file: [0, 4]",
        ),
        (
            {"insert_line": "end", "new_str": "x"},
            "Invalid `insert_line` parameter: end. It should be within the range of lines of the file: [0, 4]",
        ),
    ],
)
def test_refused_insertions(edit: Editor, arguments: dict[str, Any], message: str) -> None:
    edit.write("a.txt", letters(3))
    assert edit.refuses("insert", "/a.txt", **arguments) == message


def test_undo_takes_back_edits_one_by_one_and_byte_for_byte(edit: Editor) -> None:
    file = edit.write("a.txt", b"\ta\r\n")
    edit.write("b.txt", "other\n")
    edit("str_replace", "/a.txt", old_str="a", new_str="b")
    edit("insert", "/a.txt", insert_line=0, new_str="top")
    assert file.read_bytes() == b"top\n        b\n"
    assert edit("undo_edit", "/a.txt") == (
        "Last edit to /a.txt undone successfully. Here's the result of running `cat -n` on /a.txt:\n"
        "     1\t        b\n     2\t\n"
    )
    edit("undo_edit", "/a.txt")
    assert file.read_bytes() == b"\ta\r\n"
    assert edit.refuses("undo_edit", "/a.txt") == "No edit history found for /a.txt."
    assert edit.refuses("undo_edit", "/b.txt") == "No edit history found for /b.txt."
    assert sorted(path.name for path in edit.root.rglob("*")) == ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("command", "path", "message"),
    [
        ("view", "/no", "The path /no does not exist. Please provide a valid path."),
        ("str_replace", "/no", "The path /no does not exist. Please provide a valid path."),
        ("insert", "/folder", "The path /folder is a directory and only the `view` command can be used on directories"),
        ("create", "/folder", "File already exists at: /folder. Cannot overwrite files using command `create`."),
        (
            "delete",
            "/a.txt",
            "Unrecognized command delete. The allowed commands for the str_replace_editor tool are: "
            '"view", "create", "str_replace", "insert", "undo_edit"',
        ),
    ],
)
def test_refused_paths_and_commands(edit: Editor, command: str, path: str, message: str) -> None:
    edit.write("folder/x", "")
    edit.write("a.txt", "")
    assert edit.refuses(command, path) == message


def test_a_relative_path_is_refused_with_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(editor.RefusedError) as refused:
        editor.run({"command": "view", "path": "a/b.txt"}, tmp_path)
    assert str(refused.value) == (
        f"The path a/b.txt is not an absolute path, it should start with `/`. Maybe you meant {tmp_path}/a/b.txt?"
    )


def as_program(state: Path, words: list[str], stdin: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", str(editor.__file__), *words],
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        env={**os.environ, "SWE_SRL_STATE": str(state), "LC_ALL": "C"},
        check=False,
    )
    return done.returncode, done.stdout.decode()


def test_as_a_program(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    created = json.dumps({"command": "create", "path": str(file), "file_text": "é — 茶\n"})
    assert as_program(tmp_path, [], created) == (0, f"File created successfully at: {file}\n")
    assert as_program(tmp_path, [], created) == (
        1,
        f"File already exists at: {file}. Cannot overwrite files using command `create`.\n",
    )
    status, answer = as_program(tmp_path, ["str_replace", str(file), "--old_str", "é", "--new_str", "e"])
    assert (status, file.read_text("utf-8")) == (0, "e — 茶\n")
    assert "     1\te — 茶\n" in answer
    assert as_program(tmp_path, ["undo_edit", str(file)])[0] == 0
    assert file.read_text("utf-8") == "é — 茶\n"
    assert as_program(tmp_path, ["view", "/proc/self/mem"]) == (
        1,
        "Ran into [Errno 5] Input/output error while working on /proc/self/mem\n",
    )
