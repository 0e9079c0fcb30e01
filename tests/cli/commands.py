"""The program as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "trajectories" / "ttlbox-expiry-edge.jsonl"
NO_DAEMON = {"DOCKER_HOST": "unix:///nonexistent.sock"}


def start(
    *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT, background: bool = False
) -> subprocess.Popen[str]:
    """background: as a script's `&` begins it, with Ctrl-C ignored."""
    command = [sys.executable, "-m", "swe_srl.cli", *map(str, arguments)]
    piped = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if background:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    return subprocess.Popen(command, cwd=cwd, env={**os.environ, **(env or {})}, text=True, **piped)  # type: ignore[call-overload, no-any-return]


def run(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> tuple[int, str, str]:
    """Exit status, standard output, standard error. A traceback is a failure wherever it appears."""
    process = start(*arguments, env=env, cwd=cwd)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def one_object(out: str) -> dict[str, Any]:
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def trajectory(name: str, task: str = "tiny", scaffold: str = "swe-agent", command: str = "echo 1") -> Trajectory:
    action = Action((ToolCall("bash", {"command": command}, "call_0"),))
    turns = (Turn("user", "It fails."), Turn("agent", "", "Look.", action, Observation("OBSERVATION:\n1", "1", 0)))
    return Trajectory(name, task, scaffold, "atif", turns)
