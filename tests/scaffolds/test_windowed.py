"""The windowed tools of SWE-agent 1: what each shows, what it refuses, and which lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from windowed_container import Container, lines, numbers

EDITED = (
    "File updated. Please review the changes and make sure they are correct\n"
    "(correct indentation, no duplicate lines, etc). Edit the file again if necessary.\n"
)
REPLACED = """Text replaced. Please review the changes and make sure they are correct:

1. The edited file is correctly indented
2. The edited file does not contain duplicate lines
3. The edit does not break existing functionality

Edit the file again if necessary.
"""
RULE = "-" * 48
NOT_APPLIED = (
    "Your changes have NOT been applied. Please fix your edit command and try again.\n"
    "DO NOT re-run the same failed edit command. Running it again will lead to the same error."
)


@pytest.fixture
def edit(tmp_path: Path) -> Container:
    return Container(tmp_path)


@pytest.fixture
def replace(tmp_path: Path) -> Container:
    return Container(tmp_path, "replace")


def test_open_shows_the_path_as_given_and_the_line_below_a_sixth_of_the_window(edit: Container) -> None:
    edit.write("a.txt", lines(300))
    assert edit("open", path="a.txt") == f"[File: a.txt (300 lines total)]\n{numbers(1, 100)}\n(200 more lines below)"
    # Line 150 is the 149th from 0; a sixth of 100 lines is 16.7, and 132.3 is cut to 132.
    assert edit("open", path=f"{edit.testbed}/a.txt", line_number=150) == (
        f"[File: /testbed/a.txt (300 lines total)]\n(132 more lines above)\n{numbers(133, 232)}\n(68 more lines below)"
    )


def test_the_end_of_the_file_fills_the_window(edit: Container) -> None:
    edit.write("a.txt", lines(120))
    assert edit("open", path="a.txt", line_number=121) == (
        "Warning: <line_number> (121) is greater than the number of lines in the file (120)\n"
        "Warning: Setting <line_number> to 120\n"
        f"[File: a.txt (120 lines total)]\n(20 more lines above)\n{numbers(21, 120)}"
    )
    assert edit("open", path="a.txt", line_number=-3).startswith(
        "Warning: <line_number> (-3) is less than 1\nWarning: Setting <line_number> to 1\n"
        "[File: a.txt (120 lines total)]\n1:l1\n"
    )


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("open", 'Usage: open "<file>"'),
        ("open .", "Error: . is a directory. You can only open files. Use cd or ls to navigate directories."),
        ("open none.txt", "Error: File none.txt not found"),
        ("open a.txt x", 'Usage: open "<file>" [<line_number>]\nError: <line_number> must be a number'),
        ("goto 1 2", "goto allows only one line number at a time."),
        ("goto", "Usage: goto <line>"),
        ("goto x", "Usage: goto <line>\nError: <line> must be a number"),
        ("goto 1", "No file open. Use the open command first."),
        ("scroll_up", "No file open. Use the open command first."),
        ("create", "Usage: create <filename>"),
        ("create a.txt", "Warning: File 'a.txt' already exists."),
        ("edit 1:1 x", "No file opened. Use the `open` command first."),
        ("insert x", "No file opened. Use the `create` or `open` command first."),
    ],
)
def test_refusals(edit: Container, typed: str, answer: str) -> None:
    edit.write("a.txt", "one\n")
    seen = edit.observe("bash", command=typed)
    assert (seen.output, seen.returncode) == (answer, 1)


def test_goto_and_scroll(edit: Container) -> None:
    edit.write("a.txt", lines(400))
    edit("open", path="a.txt")
    # The file is known by its full path from now on. Two lines stay in view.
    assert edit("scroll_down") == (
        f"[File: /testbed/a.txt (400 lines total)]\n(98 more lines above)\n{numbers(99, 198)}\n(202 more lines below)"
    )
    assert edit("scroll_up").startswith("[File: /testbed/a.txt (400 lines total)]\n1:l1\n")
    assert edit("goto", line_number=200).startswith("[File: /testbed/a.txt (400 lines total)]\n(182 more lines above)\n183:")
    assert edit("goto", line_number=401) == "Error: <line> must be less than or equal to 400"


def test_create_writes_an_empty_line_and_makes_folders(edit: Container) -> None:
    assert edit("create", filename="new/a.py") == "[File: new/a.py (1 lines total)]\n1:"
    assert (edit.testbed / "new/a.py").read_bytes() == b"\n"


def test_edit_replaces_lines(edit: Container) -> None:
    file = edit.write("a.txt", lines(3))
    edit("open", path="a.txt")
    assert edit("edit", start_line=2, end_line=2, replacement_text="two\n  2.5\n") == (
        f"{EDITED}[File: /testbed/a.txt (4 lines total)]\n1:l1\n2:two\n3:  2.5\n4:l3\n"
    )
    assert edit("edit", start_line=2, end_line=3, replacement_text="") == (
        f"{EDITED}[File: /testbed/a.txt (2 lines total)]\n1:l1\n2:l3\n"
    )
    assert file.read_bytes() == b"l1\nl3\n"


def test_edit_as_it_is_typed(edit: Container) -> None:
    file = edit.write("a.txt", lines(3))
    assert edit("bash", command="open a.txt && edit 2:2 <<'end'\ntwo\nend\n").endswith("1:l1\n2:two\n3:l3")
    assert edit("bash", command="edit a:b x").startswith("Usage: edit <start_line>:<end_line>\n<replacement_text>\nend_of_edit")
    assert file.read_bytes() == b"l1\ntwo\nl3\n"


def test_an_edit_with_a_new_error_is_taken_back(edit: Container) -> None:
    file = edit.write("a.py", "def f():\n    return 1\n")
    edit("open", path="a.py")
    refused = edit.observe("edit", start_line=2, end_line=2, replacement_text="return 2\nx = y")
    assert refused.returncode == 1
    assert refused.output == (
        "Your proposed edit has introduced new syntax error(s). Please read this error message carefully and then retry "
        "editing the file.\n\n"
        "ERRORS:\n- E999 IndentationError: expected an indented block after function definition on line 1\n\n"
        f"This is how your edit would have looked if applied\n{RULE}\n"
        f"[File: /testbed/a.py (3 lines total)]\n1:def f():\n2:return 2\n3:x = y\n{RULE}\n\n"
        f"This is the original code before your edit\n{RULE}\n"
        f"[File: /testbed/a.py (2 lines total)]\n1:def f():\n2:    return 1\n{RULE}\n\n{NOT_APPLIED}\n"
    )
    assert file.read_text() == "def f():\n    return 1\n"


def test_what_was_wrong_before_is_not_the_edits_fault(edit: Container) -> None:
    edit.write("a.py", "a\nb = 1\nc\n")
    edit("open", path="a.py")
    assert edit("edit", start_line=2, end_line=2, replacement_text="b = 1\nb = 2").startswith(EDITED)
    assert "ERRORS:\n- F821 undefined name 'd'\n\nThis" in edit("edit", start_line=2, end_line=2, replacement_text="d")


def test_an_edit_turns_crlf_into_lf(edit: Container) -> None:
    file = edit.write("a.txt", "one\r\ntwo\r\n")
    edit("open", path="a.txt")
    edit("edit", start_line=1, end_line=1, replacement_text="1")
    assert file.read_bytes() == b"1\ntwo\n"


def test_bytes_that_are_no_utf8_survive_an_edit(edit: Container) -> None:
    file = edit.write("a.txt", "one\ntwo\n")
    file.write_bytes(b"one\n\xff\n")
    edit("bash", command="open a.txt > /dev/null")
    edit("bash", command="edit 1:1 1 > /dev/null")
    assert file.read_bytes() == b"1\n\xff\n"


def test_replace_a_text(replace: Container) -> None:
    file = replace.write("a.txt", lines(300))
    replace("open", path="a.txt", line_number=100)
    # Line 110 is the 109th from 0; 109 - 16.7 is 92.3.
    assert replace("edit", search="l110\n", replace="ten\nmore\n") == (
        f"{REPLACED}[File: /testbed/a.txt (301 lines total)]\n(92 more lines above)\n{numbers(93, 109)}\n110:ten\n111:more\n"
        + "\n".join(f"{n}:l{n - 1}" for n in range(112, 193))
        + "\n(109 more lines below)"
    )
    assert file.read_text() == lines(300).replace("l110\n", "ten\nmore\n")


def test_replace_everywhere(replace: Container) -> None:
    file = replace.write("a.txt", "a b a\na\n")
    replace("open", path="a.txt")
    assert replace("edit", search="a", replace="c", replace__all=True) == (
        REPLACED.replace("Text replaced", "Replaced 3 occurrences") + "[File: /testbed/a.txt (2 lines total)]\n1:c b c\n2:c"
    )
    assert file.read_text() == "c b c\nc\n"


def test_what_cannot_be_replaced(replace: Container) -> None:
    file = replace.write("a.txt", "a\na\n" + lines(200))
    assert replace("edit", search="a", replace="b") == "No file opened. Either `open` or `create` a file first."
    replace("open", path="a.txt")
    refused = "Your edit was not applied (file not modified): "
    assert replace("edit", search="", replace="b") == "Search text must not be empty. Use insert to add new text."
    assert replace("edit", search="b", replace="b") == (
        "Your search and replace strings are the same. No changes were made. Please modify your search or replace strings."
    )
    assert replace("edit", search="a", replace="b") == (
        f"{refused}Found more than one occurrence of 'a' in the currently displayed lines.\n"
        "Please make your search string more specific (for example, by including more lines of context).\n"
    )
    assert replace("edit", search="l200", replace="b") == (
        f"{refused}Text 'l200' not found in displayed lines.\n\n"
        "However, we found the following occurrences of your search string in the file:\n\n- line 202\n\n"
        "You can use the `goto` command to navigate to these locations before running the edit command again.\n"
    )
    assert replace("edit", search="none", replace="b") == (
        f"{refused}Text 'none' not found in displayed lines (or anywhere in the file).\n"
        "Please modify your search string. Did you forget to properly handle whitespace/indentation?\n"
        "You can also call `open` again to re-display the file with the correct context.\n"
    )
    assert file.read_text() == "a\na\n" + lines(200)


def test_a_replacement_with_a_new_error_is_taken_back(replace: Container) -> None:
    file = replace.write("a.py", "x = 1\n")
    replace("open", path="a.py")
    refused = replace.observe("edit", search="1", replace="(")
    assert refused.returncode == 4
    assert refused.compared.split("\n")[2:7] == [
        "ERRORS:", "", "- E999 SyntaxError: '(' was never closed", "", "This is how your edit would have looked if applied",
    ]  # fmt: skip
    assert refused.compared.endswith(f"1:x = 1\n{RULE}\n\n{NOT_APPLIED}\n")
    assert file.read_text() == "x = 1\n"


def test_the_early_replacement_shows_one_line_less_above_and_other_words(tmp_path: Path) -> None:
    early = Container(tmp_path, "replace-2024")
    early.write("a.txt", lines(300))
    early("open", path="a.txt", line_number=100)
    assert early("edit", search="l110", replace="ten").startswith(
        "Text replaced. Please review the changes and make sure they are correct\n"
        "(correct indentation, no duplicate lines, etc). Edit the file again if necessary.\n"
        "[File: /testbed/a.txt (300 lines total)]\n(93 more lines above)\n94:l94\n"
    )


def test_insert(replace: Container) -> None:
    file = replace.write("a.txt", "one\ntwo\n")
    replace("open", path="a.txt")
    assert replace("insert", text="1.5\n", line=1) == "[File: /testbed/a.txt (3 lines total)]\n1:one\n2:1.5\n3:two"
    assert replace("insert", text="end") == "[File: /testbed/a.txt (4 lines total)]\n1:one\n2:1.5\n3:two\n4:end"
    assert file.read_text() == "one\n1.5\ntwo\nend"


def test_insert_with_a_new_error_is_taken_back(replace: Container) -> None:
    file = replace.write("a.py", "x = 1\n")
    replace("open", path="a.py")
    assert replace("insert", text="  y").startswith(
        "Your proposed edit has introduced new syntax error(s).\nPlease read this error message carefully and then retry "
        "editing the file.\n\nERRORS:\n\n- E999 IndentationError: unexpected indent\n\nThis is how"
    )
    assert file.read_text() == "x = 1\n"
