"""Training with vLLM's engine for real, when one of the two processes is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hand_made import trajectory
from tiny_models import save_policy
from tiny_runs import RECIPE, until, updates

from swe_srl.trajectories.storage import write_jsonl

pytestmark = pytest.mark.xdist_group("vllm")

RUN = """
[sampling]
engine = "vllm"
restarts = 0
max_tokens = 4
[sampling.vllm]
max_model_len = 2048
kv_cache_gib = 0.1
compile = false
[evaluation]
every = 1
[checkpoints]
every = 5
[[stages]]
objective = "sft"
updates = 100000
steps_per_update = 2
lr = 1e-3
"""
"""Every update is followed by an evaluation, for which the engine takes new weights and samples."""


@pytest.fixture
def folder(tmp_path: Path, vllm_engine: None) -> Path:
    save_policy(tmp_path / "policy", head_dim=64)  # vLLM on a CPU serves no smaller ones
    write_jsonl(tmp_path / "runs.jsonl", [trajectory("a", "lib-1", ["ls", "ls"]), trajectory("b", "held-1", ["ls"])])
    (tmp_path / "recipe.toml").write_text((RECIPE + RUN).format(folder=tmp_path))
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`swe-srl train` with what it says going to folder/said."""
    command = [sys.executable, "-m", "swe_srl.cli", "train", *arguments]
    with (folder / "said").open("w") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, text=True)


def engine_of(trainer: subprocess.Popen[str]) -> tuple[psutil.Process, list[psutil.Process], list[Path]]:
    """vLLM's process, all that runs for the trainer, and the folders of what runs."""
    family = psutil.Process(trainer.pid).children(recursive=True)
    [engine] = [child for child in family if child.cmdline()[1:3] == ["-m", "swe_srl.policy.samplers.serving"]]
    lifelines = [child for child in family if child.cmdline()[1:3] == ["-m", "swe_srl.policy.samplers.lifeline"]]
    return engine, family, [Path(lifeline.cmdline()[3]) for lifeline in lifelines]


def assert_nothing_is_left(family: list[psutil.Process], folders: list[Path]) -> None:
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert not any(folder.exists() for folder in folders)


def test_killing_the_trainer_or_the_engine(folder: Path) -> None:
    run = folder / "run"
    trainer = start(folder, str(folder / "recipe.toml"), "--out", str(run))
    until(lambda: updates(run) >= 6, trainer)
    _, family, folders = engine_of(trainer)
    assert len(folders) == 2
    assert all(folder.is_dir() for folder in folders)
    trainer.kill()
    assert trainer.wait(30) == -signal.SIGKILL
    assert_nothing_is_left(family, folders)

    # The checkpoint after 5 updates is where it goes on; the engine dies between that after 10 and that after 15.
    trainer = start(folder, "--resume", str(run))
    until(lambda: updates(run) % 5 == 2 and updates(run) > 10, trainer)
    engine, family, folders = engine_of(trainer)
    engine.suspend()
    before = updates(run)
    time.sleep(1)
    engine.kill()
    assert trainer.wait(60) == 1
    assert_nothing_is_left(family, folders)
    kept = updates(run)
    assert before <= kept <= before + 1, "the trainer waited for the engine"
    said = (folder / "said").read_text()
    assert "vLLM's engine is lost: it has ended" in said
    assert f"{kept} update(s) are kept; to continue: swe-srl train --resume" in said
    assert "Traceback" not in said
    saved = json.loads((run / "checkpoints" / f"{kept:06d}" / "progress.json").read_text())
    assert saved["updates"] == kept
