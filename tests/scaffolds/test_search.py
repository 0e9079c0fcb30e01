"""SWE-agent's search tools: what each shows, in the order of names."""

from __future__ import annotations

from pathlib import Path

import pytest
from windowed_container import Container


@pytest.fixture
def search(tmp_path: Path) -> Container:
    container = Container(tmp_path)
    container.write("b/x.py", "import os\nos.path\n")
    container.write("a/x.py", "import sys\n")
    container.write("a/my y.txt", "no\nimport os.\n")
    container.write(".hidden/x.py", "import os\n")
    container.write("binary", "import os\0\n")
    return container


def test_find_file(search: Container) -> None:
    assert search("find_file", file_name="x.py") == (
        'Found 3 matches for "x.py" in /testbed:\n/testbed/.hidden/x.py\n/testbed/a/x.py\n/testbed/b/x.py'
    )
    assert search("find_file", file_name="*.txt", dir="a") == 'Found 1 matches for "*.txt" in /testbed/a:\n/testbed/a/my y.txt'
    assert search("find_file", file_name="z") == 'No matches found for "z" in /testbed'
    assert search("find_file", file_name="z", dir="none") == "Directory none not found"
    assert search("bash", command="find_file") == "Usage: find_file <file_name> [<dir>]"


def test_search_dir_counts_lines_and_leaves_out_hidden_and_binary_files(search: Container) -> None:
    assert search("search_dir", search_term="os") == (
        'Found 3 matches for "os" in /testbed:\n/testbed/a/my y.txt (1 matches)\n/testbed/b/x.py (2 matches)\n'
        'End of matches for "os" in /testbed'
    )
    assert search("search_dir", search_term="^os", dir="b").startswith('Found 1 matches for "^os" in /testbed/b:\n')
    assert search("search_dir", search_term="-x") == 'No matches found for "-x" in /testbed'
    assert search("search_dir", search_term="os", dir="none") == "Directory none not found"
    assert search("bash", command="search_dir") == "Usage: search_dir <search_term> [<dir>]"


def test_search_dir_shows_no_more_than_100_files(search: Container) -> None:
    for i in range(101):
        search.write(f"many/{i}", "needle\n")
    assert search("search_dir", search_term="needle") == (
        'More than 101 files matched for "needle" in /testbed. Please narrow your search.'
    )


def test_search_file(search: Container) -> None:
    assert search("search_file", search_term="os") == "No file open. Use the open command first."
    search("open", path="b/x.py")
    assert search("search_file", search_term="os") == (
        'Found 2 matches for "os" in /testbed/b/x.py:\nLine 1:import os\nLine 2:os.path\n'
        'End of matches for "os" in /testbed/b/x.py'
    )
    assert search("search_file", search_term="z", file="a/x.py") == 'No matches found for "z" in /testbed/a/x.py'
    assert search("search_file", search_term="z", file="a") == (
        "Usage: search_file <search_term> [<file>]\nError: File name a not found. Please provide a valid file name."
    )
    assert search("bash", command="search_file") == "Usage: search_file <search_term> [<file>]"


def test_search_file_has_a_limit_in_version_1_only(search: Container, tmp_path: Path) -> None:
    old = Container(tmp_path / "old", "0")
    for container in (search, old):
        container.write("many", "x\n" * 101)
    assert search("search_file", search_term="x", file="many") == (
        'More than 101 lines matched for "x" in /testbed/many. Please narrow your search.'
    )
    assert old("search_file", search_term="x", file="many").startswith(
        'Found 101 matches for "x" in /testbed/many:\nLine 1:x\n'
    )
