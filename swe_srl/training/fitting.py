"""Whether a recipe, its model and its data fit each other.

Invariant: what does not fit is refused by name before anything is written.
"""

from __future__ import annotations

from typing import Any

from swe_srl.config import Recipe
from swe_srl.errors import UserError
from swe_srl.training.data import Dataset, check_context
from swe_srl.training.processes import Processes
from swe_srl.training.tree.families import noise_in
from swe_srl.training.tree.select import engine_for


def check_fit(recipe: Recipe, model: Any, dataset: Dataset, processes: Processes) -> None:
    """Raise UserError where they do not: a stage without data or engine, a prompt too long, a figure without held-out steps."""
    for stage in recipe.stages:
        dataset.for_objective(stage.objective)
        engine_for(stage, model, 1.0, processes)
    if processes.count > 1 and noise_in(model):
        raise UserError("dropout draws in each process for itself, and a run could not be continued: it takes one process")
    check_context(dataset, recipe, context_of(model))
    figures = {recipe.figure_of(stage) for stage in recipe.stages} - {None, "resolved_rate"}
    if (figures or recipe.evaluation.keep_stages) and not dataset.validation:
        raise UserError("evaluation.best and keep_stages need held-out steps: set data.hold_out_tasks or data.validation")


def context_of(model: Any) -> int | None:
    """Tokens that the model can hold; None where its configuration does not say."""
    context: int | None = getattr(model.config, "max_position_embeddings", None)
    return context
