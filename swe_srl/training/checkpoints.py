"""What an unfinished run is continued from.

    checkpoints/000012/      after 12 updates
        model/               weights (or the adapter) and tokenizer
        optimizer.pt         the optimizer's state and that of the random number generators
        progress.json        how far the run is
        ahead.json           the next batch, where it is drawn already

Invariant: continued from its newest checkpoint, a run writes what it would have written uninterrupted. The newest is complete
and on disk before an older one goes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from swe_srl.errors import UserError
from swe_srl.training.ahead import Drawn, read_drawn, write_drawn
from swe_srl.training.atomic import remove_folder, write_folder
from swe_srl.training.weights import load_weights, save_weights


@dataclass(slots=True)
class Progress:
    """How far a run is."""

    stage: int = 0
    """Index of the current stage."""
    update: int = 0
    """Updates done in it."""
    updates: int = 0
    """Updates done in all."""
    batches: dict[str, int] = field(default_factory=dict)
    """Where the stage's source of batches is; empty at its beginning."""
    lines: dict[str, int] = field(default_factory=dict)
    """Bytes of the run folder's files of lines."""
    seconds: float = 0.0
    """Spent so far."""


class Checkpoints:
    """The checkpoints of a run folder."""

    def __init__(self, run_folder: Path, keep: int) -> None:
        """`keep`: how many of the newest are kept."""
        self.folder, self.keep = run_folder / "checkpoints", keep

    def newest(self) -> Path | None:
        """The checkpoint to continue from, if there is one."""
        return max(self._complete(), default=None)

    def save(
        self,
        progress: Progress,
        model: Any,
        tokenizer: Any,
        optimizer: Mapping[str, Any] | None,
        ahead: Drawn | None = None,
    ) -> None:
        """Save where the run is, unless the newest checkpoint is there already. `optimizer`: its state."""
        final = self.folder / f"{progress.updates:06d}"

        def write(folder: Path) -> None:
            save_weights(folder / "model", model, tokenizer)
            state = {"optimizer": optimizer, "random": _random_state()}
            torch.save(state, folder / "optimizer.pt")
            if ahead is not None:
                write_drawn(folder / _AHEAD, ahead)
            (folder / "progress.json").write_bytes(_PROGRESS.dump_json(progress, indent=2))

        if not final.exists():
            write_folder(final, write)
        for old in sorted(self._complete())[: -self.keep]:
            remove_folder(old)
        for rest in self.folder.glob("*.*"):  # of a kill
            shutil.rmtree(rest)

    def remove(self) -> None:
        """Remove all of them, when the run is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return [path for path in self.folder.glob("*") if path.name.isdecimal()]


def read_progress(checkpoint: Path) -> Progress:
    """How far the run was. Raises UserError where the file is damaged."""
    path = checkpoint / "progress.json"
    try:
        return _PROGRESS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def restore(checkpoint: Path, model: Any) -> tuple[dict[str, Any], Drawn | None]:
    """Put weights and random number generators back; the optimizer's state (empty: none) and a batch drawn ahead."""
    load_weights(model, checkpoint / "model")
    state = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
    _set_random_state(state["random"])
    return state["optimizer"] or {}, read_drawn(checkpoint / _AHEAD)


def _random_state() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": _without_arrays(np.random.get_state(legacy=False)),
    }


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])


def _without_arrays(value: Any) -> Any:
    """Arrays as lists, because torch reads no others without trusting the file."""
    if isinstance(value, Mapping):
        return {key: _without_arrays(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


_AHEAD = "ahead.json"
_PROGRESS = TypeAdapter(Progress)
