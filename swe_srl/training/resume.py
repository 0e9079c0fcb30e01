"""Whether a run folder can be continued by a recipe, and from where.

Invariant: a run is continued only with the recipe and the data it began with. Where a run is kept and carried out, how often
it is saved and who is told are no part of that.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from typing import Any

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.recipes import load_recipe
from swe_srl.training.data import Dataset
from swe_srl.training.folder import RunFolder

FREE = (
    "out",
    "checkpoints.",
    "cluster.",
    "plan.",
    "tracking.",
    "model.weights",
    "model.process_timeout",
    "sampling.engines",
    "sampling.restarts",
)
"""Options (by the beginning of their names) that may differ."""


def check_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """Raises UserError where the folder holds no run, or the recipe differs from that of the run; it names every option."""
    if folder.status is None:
        raise UserError(f"{folder.path}: holds no run to continue; start one with --out {folder.path}")
    before, now = (_options(r.model_dump()) for r in (load_recipe(folder.path / "recipe.toml"), recipe))
    changed = [
        f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if changed:
        raise UserError(f"{folder.path}: cannot be continued by another recipe: {'; '.join(changed)}")


def check_data(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """Raises UserError where the data have changed since the run began."""
    path = folder.path / "data.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    changed = [key for key in sorted(before.keys() | data.keys()) if before.get(key) != data.get(key)]
    if changed:
        raise UserError(
            f"{folder.path}: cannot be continued: the data have changed since it began (data.json: {', '.join(changed)})"
        )


def version_changes(folder: RunFolder, now: Mapping[str, Any]) -> list[str]:
    """What is not as it was when the run began; it may change the metrics."""
    before = _options(json.loads((folder.path / "versions.json").read_text(encoding="utf-8")))
    after = _options(now)
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return [f"{key.removeprefix('packages.')} {before.get(key)} → {after.get(key)}" for key in changed]


def fingerprint(dataset: Dataset) -> str:
    """A hash of everything a run trains and is evaluated on, in its order."""
    digest = hashlib.sha256()
    for item in dataset.train:
        digest.update(item.step.id.encode())
        for ids in (item.prompt_ids, item.target_ids):
            digest.update(f" {len(ids)} ".encode() + array("i", ids).tobytes())
    for step in dataset.validation:
        digest.update(f"{step.id}\n".encode())
    return digest.hexdigest()


def _options(values: Any, prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted name."""
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else None
    if items is None or (isinstance(values, list) and not any(isinstance(value, Mapping) for value in values)):
        return {prefix.removesuffix("."): values}
    return {name: value for key, inner in items for name, value in _options(inner, f"{prefix}{key}.").items()}
