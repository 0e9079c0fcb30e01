"""The windowed tools of SWE-agent 0: what each shows, what it refuses, and which lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from windowed_container import Container, lines, numbers

EDITED = (
    "File updated. Please review the changes and make sure they are correct (correct indentation, no duplicate lines, etc). "
    "Edit the file again if necessary.\n"
)
RULE = "-" * 49


@pytest.fixture
def edit(tmp_path: Path) -> Container:
    return Container(tmp_path, "0")


def test_open_shows_the_full_path_and_the_line_below_a_sixth_of_the_window(edit: Container) -> None:
    edit.write("a.txt", lines(300))
    assert (
        edit("open", path="a.txt") == f"[File: /testbed/a.txt (300 lines total)]\n{numbers(1, 100)}\n(200 more lines below)\n"
    )
    # The middle is 150 + 50 - 16 = 184.
    assert edit("open", path="a.txt", line_number=150) == (
        f"[File: /testbed/a.txt (300 lines total)]\n(134 more lines above)\n{numbers(135, 234)}\n(66 more lines below)\n"
    )
    # A line too far down becomes the middle, and then the file's end fills the window.
    assert edit("open", path="a.txt", line_number=301) == (
        "Warning: <line_number> (301) is greater than the number of lines in the file (300)\n"
        "Warning: Setting <line_number> to 300\n"
        f"[File: /testbed/a.txt (300 lines total)]\n(200 more lines above)\n{numbers(201, 300)}\n"
    )


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("open", "Usage: open <file>"),
        ("open .", "Error: . is a directory. You can only open files. Use cd or ls to navigate directories."),
        ("open none.txt", "File none.txt not found"),
        ("open a.txt x", "Usage: open <file> [<line_number>]\nError: <line_number> must be a number"),
        ("goto 1 2", "goto allows only one line number at a time."),
        ("goto 1", "No file open. Use the open command first."),
        ("scroll_down", "No file open. Use the open command first."),
        ("create", "Usage: create <filename>"),
        ("create a.txt", "Error: File 'a.txt' already exists.\n[File: /testbed/a.txt (1 lines total)]\n1:one"),
        ("edit 1:1 <<< x", "No file open. Use the `open` command first."),
        ("open a.txt > /dev/null; goto", "Usage: goto <line>"),
        ("open a.txt > /dev/null; goto x", "Usage: goto <line>\nError: <line> must be a number"),
        ("open a.txt > /dev/null; goto 2", "Error: <line> must be less than or equal to 1"),
        ("open a.txt > /dev/null; edit 1 <<< x", "Usage: edit <start_line>:<end_line>"),
        ("open a.txt > /dev/null; edit a:1 <<< x", "Usage: edit <start_line>:<end_line>\nError: start_line must be a number"),
        ("open a.txt > /dev/null; edit 1:b <<< x", "Usage: edit <start_line>:<end_line>\nError: end_line must be a number"),
    ],
)
def test_refusals_have_status_0(edit: Container, typed: str, answer: str) -> None:
    file = edit.write("a.txt", "one\n")
    seen = edit.observe("bash", command=typed)
    assert (seen.output, seen.returncode) == (answer + "\n", 0)
    assert file.read_text() == "one\n"


def test_goto_and_scroll(edit: Container) -> None:
    edit.write("a.txt", lines(400))
    edit("open", path="a.txt")
    assert edit("scroll_down") == (
        f"[File: /testbed/a.txt (400 lines total)]\n(98 more lines above)\n{numbers(99, 198)}\n(202 more lines below)\n"
    )
    assert edit("scroll_up").startswith("[File: /testbed/a.txt (400 lines total)]\n1:l1\n")
    assert edit("goto", line_number=200).startswith("[File: /testbed/a.txt (400 lines total)]\n(184 more lines above)\n185:")


def test_create_writes_an_empty_line(edit: Container) -> None:
    assert edit("create", filename="a.py") == "[File: /testbed/a.py (1 lines total)]\n1:\n"
    assert (edit.testbed / "a.py").read_bytes() == b"\n"


def test_edit_puts_the_line_before_in_the_middle(edit: Container) -> None:
    file = edit.write("a.txt", lines(300))
    edit("open", path="a.txt")
    assert edit("edit", start_line=200, end_line=201, replacement_text="new") == (
        f"[File: /testbed/a.txt (299 lines total)]\n(149 more lines above)\n{numbers(150, 199)}\n200:new\n"
        + "\n".join(f"{n}:l{n + 1}" for n in range(201, 250))
        + f"\n(50 more lines below)\n{EDITED}"
    )
    assert file.read_text() == lines(300).replace("l200\nl201\n", "new\n")


@pytest.mark.parametrize(
    ("typed", "content"),
    [
        ("edit 2:2\nend_of_edit\n", "l1\nl3\n"),
        ("edit 2:2\n\nend_of_edit\n", "l1\n\nl3\n"),
        ("edit 2:2\na\nend_of_edit\n", "l1\na\nl3\n"),
        ("edit 2:2\na\n\nend_of_edit", "l1\na\n\nl3\n"),
        ("edit 2:2\n\n\nend_of_edit", "l1\n\n\nl3\n"),
    ],
)
def test_every_line_of_a_typed_edit_counts(edit: Container, typed: str, content: str) -> None:
    file = edit.write("a.txt", lines(3))
    edit("open", path="a.txt")
    call = edit.scaffold.parse_command(typed)
    assert call.name == "edit"
    edit("edit", **call.arguments)
    assert file.read_text() == content


def test_an_edited_file_ends_with_a_line_end(edit: Container) -> None:
    file = edit.write("a.txt", "one\r\ntwo")
    edit("open", path="a.txt")
    edit("edit", start_line=2, end_line=2, replacement_text="2")
    assert file.read_bytes() == b"one\r\n2\n"


def test_an_edit_of_a_file_with_errors_is_taken_back(edit: Container) -> None:
    text = "x = y\n" + "".join(f"a{n} = {n}\n" for n in range(2, 41))
    file = edit.write("a.py", text)
    edit("open", path="a.py")
    refused = edit("edit", start_line=20, end_line=22, replacement_text="b = z\nc = 3")
    # The error of the first line counts, too. Windows of 2 + 10 and 3 + 9 lines, in the middle 1 + 19 and 2 + 19.
    assert refused == (
        "Your proposed edit has introduced new syntax error(s). Please understand the fixes and retry your edit commmand.\n\n"
        "ERRORS:\n- F821 undefined name 'y'\n- F821 undefined name 'z'\n\n"
        f"This is how your edit would have looked if applied\n{RULE}\n"
        "[File: /testbed/a.py (39 lines total)]\n(14 more lines above)\n"
        + "".join(f"{n}:a{n} = {n}\n" for n in range(15, 20))
        + "20:b = z\n21:c = 3\n"
        + "".join(f"{n}:a{n + 1} = {n + 1}\n" for n in range(22, 27))
        + f"(13 more lines below)\n{RULE}\n\nThis is the original code before your edit\n{RULE}\n"
        "[File: /testbed/a.py (40 lines total)]\n(14 more lines above)\n"
        + "".join(f"{n}:a{n} = {n}\n" for n in range(15, 28))
        + f"(13 more lines below)\n{RULE}\n"
        "Your changes have NOT been applied. Please fix your edit command and try again.\n"
        "You either need to 1) Specify the correct start/end line arguments or 2) Correct your edit code.\n"
        "DO NOT re-run the same failed edit command. Running it again will lead to the same error.\n"
    )
    assert file.read_text() == text
