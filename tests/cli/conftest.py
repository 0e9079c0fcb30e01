"""Tasks of the command line's tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """One tiny task that needs no setup, and one whose source release does not exist."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text("")
    rows = [
        {"id": "tiny", "source": {"path": "repo"}},
        {"id": "no-release", "source": {"sdist": "iniconfig==0.0.999"}},
        {"id": "idle", "source": {"path": "repo"}},
    ]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tasks.jsonl"
