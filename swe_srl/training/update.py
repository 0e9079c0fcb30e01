"""One batch's optimizer steps.

Invariant: weights change by whole steps alone, and never by a loss or a gradient that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]

from swe_srl.training.logprobs import BackwardResult, Engine, Example
from swe_srl.training.objective import Objective
from swe_srl.training.sharding import PolicyWeights, full


class NotFiniteError(Exception):
    """A loss or a gradient is infinite or not a number; the weights are as they were before the step."""

    def __init__(self, loss: float, grad_norm: float) -> None:
        super().__init__(f"loss {loss}, gradient norm {grad_norm}")
        self.loss, self.grad_norm = loss, grad_norm


@dataclass(frozen=True, slots=True)
class Updater:
    """What the updates of a stage are made with."""

    accelerator: Accelerator
    policy: PolicyWeights
    objective: Objective
    engine: Engine
    optimizer: torch.optim.Optimizer

    def update(self, examples: Sequence[Example], lr: float) -> dict[str, float]:
        """Make the steps that the objective cuts a batch into, and return their metrics. Raises NotFiniteError."""
        self.policy.trained.train()
        # Around training alone: a sampler under autocast would cast every weight again for each token it draws.
        with self.accelerator.autocast():
            steps = self.objective.steps(self.engine, self.policy.trained, examples)
        results, grad_norms = zip(*(self._step(step, lr) for step in steps), strict=True)
        return self.objective.metrics(steps, results) | {"grad_norm": fmean(grad_norms)}

    def _step(self, examples: Sequence[Example], lr: float) -> tuple[BackwardResult, float]:
        """One backward and one optimizer step: the result and the gradient's norm."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.accelerator.autocast():
            result = self.engine.backward(self.policy.trained, examples, self.objective.loss_fn(examples))
        norm = torch.nn.utils.clip_grad_norm_(self.policy.trained.parameters(), self.objective.stage.max_grad_norm)
        grad_norm = full(norm).item()
        if not (math.isfinite(result.loss) and math.isfinite(grad_norm)):
            raise NotFiniteError(result.loss, grad_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return result, grad_norm
