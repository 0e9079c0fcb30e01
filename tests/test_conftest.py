"""In CI a test that would be skipped fails, unless it only lacks the folder of real data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = """
import pytest

def test_docker(client): pass
def test_real_data(real_data): pass
def test_skipping(): pytest.skip("not today")
def test_expected_to_fail(): pytest.xfail("known")
"""


@pytest.mark.parametrize(
    ("ci", "outcomes", "status"),
    [
        ("", ["SKIPPED no Docker daemon", "SKIPPED no module", "SKIPPED no real data", "SKIPPED not today", "XFAIL"], 0),
        ("true", ["ERROR no Docker daemon", "ERROR no module", "FAILED not today", "SKIPPED no real data", "XFAIL"], 1),
    ],
)
def test_skips(tmp_path: Path, ci: str, outcomes: list[str], status: int) -> None:
    for name in ("conftest.py", "lacking.py", "publishing.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  docker\n  model\n  real_data\n")
    (tmp_path / "test_it.py").write_text(_TESTS)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('nothing', reason='no module')\n")
    lacking = {"DOCKER_HOST": "unix:///nonexistent.sock", "SWE_SRL_DATA": "/nonexistent", "CI": ci}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rsfxE", "--continue-on-collection-errors"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **lacking}, capture_output=True, text=True, check=False)
    lines = done.stdout.partition("short test summary info")[2].splitlines()[1:-1]
    reasons = ("no Docker daemon", "no module", "no real data", "not today")
    found = [" ".join([line.split()[0], *(reason for reason in reasons if reason in line)]) for line in lines]
    assert sorted(found) == outcomes
    assert done.returncode == status
