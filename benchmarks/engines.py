"""What it gains to sample with two engines, and to sample while the update before runs (`sampling.staleness`).

The same updates in four ways: one engine or two, in turns or one update behind. Each engine and the trainer compute on one
thread, so with two cores either gain is at most half. A batch is prompts of the quickstart's recipe with G samples each at
temperature 1, trained on as one tree with advantages in turn 1 and -1: what a policy answers decides nothing. The first batch
and its update are not counted. `of these waited` is what the loop waits for batches.

    python benchmarks/engines.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import cycle
from typing import Any

import torch
from process import machine
from tables import print_table, say

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.policy.base import Sampler, SamplingOptions
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.recipes import load_recipe
from swe_srl.training.ahead import Ahead
from swe_srl.training.batches import Batch
from swe_srl.training.data import load_dataset
from swe_srl.training.logprobs import Example
from swe_srl.training.tree.engine import TreeEngine

LR = 1e-6


class Endless:
    """Batches of the same prompts, sampled anew each time; see `swe_srl.training.batches.Batches`."""

    def __init__(self, prompts: Sequence[Sequence[int]], sampler: Sampler, options: SamplingOptions) -> None:
        self._prompts, self._sampler, self._options = prompts, sampler, options

    def __next__(self) -> Batch:
        groups = self._sampler.sample(self._prompts, self._options)
        advantages = cycle((1.0, -1.0))
        examples = [
            Example(prompt, sample.token_ids, next(advantages))
            for prompt, group in zip(self._prompts, groups, strict=True)
            for sample in group
        ]
        return Batch(examples, {})

    def state(self) -> dict[str, int]:
        return {}

    def restore(self, state: Any) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart.toml", help="Whose model and prompts are used.")
    parser.add_argument("--kind", default="vllm", choices=("vllm", "transformers"))
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="Longest sample.")
    parser.add_argument("--quick", action="store_true", help="2 updates, 24 tokens a sample.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.updates, options.tokens = 2, 24
    torch.set_num_threads(1)
    recipe = load_recipe(options.recipe)
    _, tokenizer = load_policy(recipe.model.name)
    train = load_dataset(recipe, tokenizer).train
    by_task = {item.step.trajectory.task_id: list(item.prompt_ids) for item in random.Random(0).sample(train, len(train))}
    prompts = list(by_task.values())[: options.prompts]
    rows = []
    for engines, staleness in ((1, 0), (2, 0), (1, 1), (2, 1)):
        rows.append(_trained(recipe.model.name, options, prompts, engines, staleness))
        say(json.dumps(rows[-1]))
    report = {"machine": machine(), "rows": rows}
    print(json.dumps(report, indent=2)) if options.json else print_table("engines", rows)


def _trained(
    name: str, options: argparse.Namespace, prompts: Sequence[Sequence[int]], engines: int, staleness: int
) -> dict[str, Any]:
    model, tokenizer = load_policy(name)
    context = max(map(len, prompts)) + options.tokens
    vllm = VllmSection(compile=False, max_model_len=context, kv_cache_gib=1.0) if options.kind == "vllm" else VllmSection()
    section = SamplingSection(engine=options.kind, engines=engines, staleness=staleness, vllm=vllm)
    sampling = SamplingOptions(n=options.samples, max_tokens=options.tokens, seed=0)
    engine, optimizer = TreeEngine(4096, 1.0), torch.optim.AdamW(model.parameters(), lr=LR)
    updates, sampled, waited, trained = 0, 0, 0.0, 0.0
    with closing(open_sampler(section, model, tokenizer)) as sampler:
        ahead = Ahead(Endless(prompts, sampler, sampling), sampler, lambda: updates, staleness)
        for updates in range(options.updates + 1):
            if updates == 1:
                sampled, waited, trained, begun = 0, 0.0, 0.0, time.perf_counter()
            asked = time.perf_counter()
            batch = ahead.take(more=updates < options.updates)
            given = time.perf_counter()
            optimizer.zero_grad()
            engine.backward(model, batch.examples, _loss)
            optimizer.step()
            done = time.perf_counter()
            ahead.settle()
            sampler.update_weights(None)
            sampled += sum(len(example.answer_ids) for example in batch.examples)
            waited, trained = waited + given - asked + time.perf_counter() - done, trained + done - given
        seconds = time.perf_counter() - begun
    return {
        "kind": options.kind,
        "engines": engines,
        "staleness": staleness,
        "updates": options.updates,
        "sampled tokens": sampled,
        "seconds an update": round(seconds / options.updates, 1),
        "of these waited": round(waited / options.updates, 1),
        "trained": round(trained / options.updates, 1),
    }


def _loss(logprobs_B_T: torch.Tensor, rows: Any) -> torch.Tensor:
    return -(logprobs_B_T * rows.mask_B_T * rows.advantages_B.unsqueeze(1)).sum() / rows.mask_B_T.sum()


if __name__ == "__main__":
    sys.exit(main())
