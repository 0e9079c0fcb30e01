"""A run's model for others to load.

Invariant: what is written loads in transformers without this project; a merged model computes what base and adapter do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from swe_srl.errors import UserError
from swe_srl.policy.model import load_policy
from swe_srl.recipes import load_recipe
from swe_srl.training.atomic import write_folder
from swe_srl.training.evaluations import BEST
from swe_srl.training.weights import is_adapter, save_weights


def export_model(run: Path, to: Path, *, merge: bool = False, best: bool = False) -> None:
    """Write a run's model and tokenizer as the folder `to`.

    Args:
        merge: of a run with adapters, write the model with the adapter worked into its weights (float32), not the adapter.
        best: the weights of the best evaluation instead of the last ones.

    Raises:
        UserError: the run has no such weights, trained no adapter to merge, or `to` exists.
    """
    source = run / (BEST if best else "checkpoint")
    if not source.is_dir():
        why = "its recipe names no evaluation.best" if best else "it is not finished"
        raise UserError(f"{run}: has no {source.name}/: {why}, or this is not the folder of a training run")
    if to.exists():
        raise UserError(f"{to}: exists already; name another folder")
    if not merge:
        write_folder(to, lambda folder: _copy(source, folder))
        return
    if not is_adapter(source):
        raise UserError(f"{source}: is a whole model, with no adapter to merge; leave out --merge")
    from peft import PeftModel

    model, tokenizer = load_policy(load_recipe(run / "recipe.toml").model.name)
    merged = PeftModel.from_pretrained(model, str(source)).merge_and_unload(safe_merge=True)
    write_folder(to, lambda folder: save_weights(folder, merged, tokenizer))


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
