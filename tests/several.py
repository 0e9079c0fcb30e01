"""`swe-srl train` launched with two processes, and whether what it wrote is what one process writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
OF_ONE = {"seconds", "peak_memory_mb", "forward_tokens", "engines"}
"""What need not be equal: a trunk that is split goes forward in both processes, and on a cluster there are engines."""


def launch(*arguments: object, processes: int = 2, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`swe-srl train` with these arguments."""
    given = {"GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1", **(environment or {})}
    command = [sys.executable, *TORCHRUN, str(processes), "-m", "swe_srl.cli", "train", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, **given}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float = 240) -> tuple[str, str]:
    """Output and errors of what has to succeed."""
    output, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return output, errors


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def close(value: Any, tolerance: float) -> Any:
    """As pytest.approx, inside what holds other values."""
    if isinstance(value, dict):
        return {key: close(inner, tolerance) for key, inner in value.items() if key not in OF_ONE}
    if isinstance(value, list):
        return [close(inner, tolerance) for inner in value]
    return pytest.approx(value, rel=tolerance, abs=tolerance) if isinstance(value, float) else value


def assert_alike(run: Path, expected: Path, tolerance: float = 1e-4, checkpoints: tuple[str, ...] = ("checkpoint",)) -> None:
    """That two runs wrote the same files with the same content, up to the order in which numbers are added up."""
    for name in ("metrics.jsonl", "samples.jsonl"):
        found = [{key: value for key, value in line.items() if key not in OF_ONE} for line in lines(run, name)]
        assert found == close(lines(expected, name), tolerance), name
    names = [path.name for path in sorted(expected.glob("evaluation-*.json"))]
    assert names == [path.name for path in sorted(run.glob("evaluation-*.json"))]
    for name in names:
        assert without_times(run / name) == close(without_times(expected / name), tolerance), name
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in expected.iterdir())
    for checkpoint in checkpoints:
        weights, others = (load_file(path / checkpoint / "model.safetensors") for path in (run, expected))
        assert weights.keys() == others.keys()
        apart = torch.cat([(weights[key] - others[key]).abs().flatten() for key in weights])
        assert apart.max() < 5e-5


def without_times(evaluation: Path) -> Any:
    found = json.loads(evaluation.read_text())
    if found["rollouts"] is not None:
        del found["rollouts"]["seconds"]
    return found
