"""Every program of ours that runs inside a container keeps to what Python 3.6 has, and to the standard library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from swe_srl import environments, scaffolds

PROGRAMS = [
    *sorted(Path(scaffolds.__file__).parent.glob("tools/*.py")),
    Path(str(environments.__path__[0])) / "supervisor.py",
]
# Used only where it is there, and tested without it: see test_a_python_that_must_fork.
GUARDED = ["os.posix_spawnp", "os.POSIX_SPAWN_DUP2"]


def _judged(*files: Path) -> tuple[int, str]:
    options = ["-t=3.6-", "--no-tips", "-vv", "--eval-annotations", *(word for name in GUARDED for word in ("--exclude", name))]
    command = [sys.executable, "-c", "from vermin import main; main()", *options, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_no_program_needs_a_later_python() -> None:
    assert len(PROGRAMS) >= 7
    status, said = _judged(*PROGRAMS)
    assert status == 0, said


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess; subprocess.run(['a'], capture_output=True)",
        "import time; time.monotonic_ns()",
        "import dataclasses",
        "if (x := 1): pass",
        "print(f'{1 + 1 = }')",
        "'a'.removeprefix('b')",
        "def f(x: list[int]): pass",
    ],
)
def test_what_later_versions_brought_is_found(tmp_path: Path, line: str) -> None:
    (tmp_path / "later.py").write_text(line + "\n")
    status, said = _judged(tmp_path / "later.py")
    assert (status, "Target versions not met" in said) == (1, True), said


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_each_stands_alone(program: Path) -> None:
    tree = ast.parse(program.read_text("utf-8"), feature_version=(3, 6))
    imported = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names
