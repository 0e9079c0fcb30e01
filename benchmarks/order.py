"""What a tree saves by the order in which steps are drawn: tokens through the model, against those of separate sequences.

Real steps are encoded as a policy's prompts, batches are drawn in either order, and the tree is planned as training plans it;
no model is needed to count. A trunk is counted once: where memory does not hold its activations it goes forward a second time.

    python benchmarks/order.py --trajectories 40 --json
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from swe_srl.config import SftStage
from swe_srl.policy.encoding import StepEncoder
from swe_srl.policy.model import load_tokenizer
from swe_srl.policy.prompts import FittedPrompt, PromptOptions
from swe_srl.training.data import TrainingStep, step_order, steps_of, tools_for
from swe_srl.training.tree.planning import plan_tree
from swe_srl.trajectories.importing import load

DATA = Path(os.environ.get("SWE_SRL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "trajectories"
CONTEXTS: dict[str, int | None] = {"whole prefix": None, "last 2 pairs": 2}
BATCHES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "mini_swe_agent_v1", help="Folder of trajectories.")
    parser.add_argument("--trajectories", type=int, default=40, help="How many of them, from the first.")
    parser.add_argument("--model", default="smollm2-135m", help="Whose tokenizer and chat template.")
    parser.add_argument("--chars", type=int, default=2000, help="Longest observation.")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--answer", type=int, default=200, help="Tokens of a sample.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = load(sorted(str(path) for path in options.data.iterdir())[: options.trajectories])
    tokenizer = load_tokenizer(options.model)
    rows = []
    for context, pairs in CONTEXTS.items():
        encoder = StepEncoder(tokenizer, PromptOptions(last_pairs=pairs, max_observation_chars=options.chars), tools_for)
        steps = steps_of(runs)
        items = [
            TrainingStep(step, "", list(prompt.ids), ())
            for step, prompt in zip(steps, encoder.encode(steps), strict=True)
            if isinstance(prompt, FittedPrompt)
        ]
        for size in (8, 64, 512):
            for order in ("steps", "trajectories"):
                if size < len(items):
                    rows.append({"context": context, "batch": size, "order": order, **count(items, size, order, options)})
    if options.json:
        print(json.dumps({"trajectories": len(runs), "rows": rows}, indent=2))
        return
    for row in rows:
        print(*(f"{value:>14,}" if isinstance(value, int) else f"{value:>14}" for value in row.values()))


def count(items: list[TrainingStep], size: int, order: str, options: Any) -> dict[str, Any]:
    """Means over a few batches of one order."""
    drawn = step_order(items, SftStage(objective="sft", updates=1, lr=1.0, order=order), "0")  # type: ignore[arg-type]
    separate, tree = [], []
    for _ in range(min(BATCHES, len(items) // size)):
        prompts = [items[index].prompt_ids for index in drawn.take(size) for _ in range(options.samples)]
        answers = [[sample] * options.answer for sample in range(len(prompts))]
        separate.append(sum(map(len, prompts)) + sum(map(len, answers)))
        trunks = list(plan_tree(prompts, answers).walk())
        tree.append(sum(len(trunk.ids) + sum(len(branch.ids) for branch in trunk.branches) for trunk in trunks))
    return {"separate": round(fmean(separate)), "tree": round(fmean(tree)), "share": round(sum(tree) / sum(separate), 4)}


if __name__ == "__main__":
    main()
