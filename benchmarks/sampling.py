"""What sampling costs, by engine, and what it is worth to sample the steps of a trajectory together.

`engines`: the prompts of the quickstart's recipe, G samples each at temperature 1, by transformers and by vLLM, with the same
model in float32. `seconds to start` is what a run pays once, `seconds to update` what it pays after an optimizer step, and
`mismatch` the mean |sampler - trainer| over the log-probabilities of each prompt's first sample, by a forward pass.

`prefix cache`: prompts with the whole prefix, in calls of 10, through an engine whose cache does not hold them all: the steps
of each trajectory together and in their order, or all steps shuffled. One token is sampled, so that the time is the prompts'.

    python benchmarks/sampling.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from tables import print_table

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.policy.base import Sampler, SamplingOptions
from swe_srl.policy.encoding import StepEncoder
from swe_srl.policy.model import load_policy
from swe_srl.policy.prompts import FittedPrompt, PromptOptions
from swe_srl.policy.samplers.fleet import Fleet
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.recipes import load_recipe
from swe_srl.training.data import load_dataset, steps_of, tools_for
from swe_srl.training.logprobs import sequence_logprobs
from swe_srl.trajectories.importing import load

ENGINES = {
    "transformers": SamplingSection(),
    "vllm": SamplingSection(engine="vllm", vllm=VllmSection(compile=False, max_model_len=2048, kv_cache_gib=2.0)),
    "vllm, compiled": SamplingSection(engine="vllm", vllm=VllmSection(max_model_len=2048, kv_cache_gib=2.0)),
}
STEPS_A_CALL = 10
CACHE_GIB = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart.toml", help="Whose model, prompts and sampling are measured.")
    parser.add_argument("--steps", type=int, default=16, help="Prompts, G samples each.")
    parser.add_argument("--trajectories", type=int, default=8, help="Whose steps the prefix cache is measured on.")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--quick", action="store_true", help="4 prompts, 48 tokens a sample, 2 trajectories, nothing compiled.")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.trajectories = 4, 2
        options.engines = [name for name in options.engines if name != "vllm, compiled"]
    torch.manual_seed(0)
    recipe = load_recipe(options.recipe)
    model, tokenizer = load_policy(recipe.model.name)
    dataset = load_dataset(recipe, tokenizer)
    prompts = [list(item.prompt_ids) for item in random.Random(0).sample(dataset.train, options.steps)]
    sampling = SamplingOptions(
        n=recipe.sampling.samples,
        temperature=recipe.sampling.temperature,
        max_tokens=48 if options.quick else recipe.sampling.max_tokens,
        seed=0,
    )
    report = {
        "machine": {"threads": torch.get_num_threads(), "device": str(next(model.parameters()).device)},
        "engines": [_engine(name, model, tokenizer, prompts, sampling) for name in options.engines],
        "prefix cache": _prefix_cache(model, tokenizer, recipe.data.train, options.trajectories),
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for name in ("engines", "prefix cache"):
        print_table(name, report[name])


def _engine(
    name: str, model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], sampling: SamplingOptions
) -> dict[str, Any]:
    started = time.perf_counter()
    sampler = open_sampler(ENGINES[name], model, tokenizer)
    ready = time.perf_counter()
    # The first call compiles what is compiled on use.
    warm_up = SamplingOptions(n=2, max_tokens=4)
    sampler.sample(prompts[:1], warm_up)
    update = _seconds_to_update(sampler, prompts[0], warm_up)
    begun = time.perf_counter()
    groups = sampler.sample(prompts, sampling)
    seconds = time.perf_counter() - begun
    sampler.close()
    rows = [(prompt, sample) for prompt, group in zip(prompts, groups, strict=True) for sample in group]
    tokens = sum(len(sample.token_ids) for _, sample in rows)
    difference, compared = 0.0, 0
    with torch.no_grad():
        for prompt, [sample, *_] in zip(prompts, groups, strict=True):
            compared += len(sample.token_ids)
            logprobs, _ = sequence_logprobs(model, [prompt], [sample.token_ids], sampling.temperature)
            difference += (logprobs[0] - torch.tensor(sample.logprobs)).abs().sum().item()
    return {
        "engine": name,
        "prompts": len(prompts),
        "samples": len(rows),
        "prompt tokens": sum(map(len, prompts)),
        "sampled tokens": tokens,
        "seconds": round(seconds, 1),
        "tokens/s": round(tokens / seconds, 1),
        "seconds to start": round(ready - started, 1),
        "seconds to update": round(update, 1),
        "mismatch": float(f"{difference / compared:.1e}"),
    }


def _seconds_to_update(sampler: Sampler, prompt: Sequence[int], options: SamplingOptions) -> float:
    """New weights are taken over by the next call: its time, less that of the same call without any."""
    begun = time.perf_counter()
    sampler.sample([prompt], options)
    without = time.perf_counter() - begun
    sampler.update_weights(None)
    begun = time.perf_counter()
    sampler.sample([prompt], options)
    return max(0.0, time.perf_counter() - begun - without)


def _prefix_cache(model: Any, tokenizer: Any, sources: list[str], count: int) -> list[dict[str, Any]]:
    steps = steps_of(list(load(sources))[:count])
    encoded = StepEncoder(tokenizer, PromptOptions(last_pairs=None, tool_descriptions=False), tools_for).encode(steps)
    prompts = [list(prompt.ids) for prompt in encoded if isinstance(prompt, FittedPrompt)]
    shuffled = random.Random(0).sample(prompts, len(prompts))
    context = max(map(len, prompts)) + 8
    section = VllmSection(compile=False, max_model_len=context, kv_cache_gib=CACHE_GIB)
    sampler = open_sampler(SamplingSection(engine="vllm", vllm=section), model, tokenizer)
    assert isinstance(sampler, Fleet)
    sampler.sample(prompts[:1], SamplingOptions(max_tokens=1))
    rows = []
    for name, order in (("trajectory by trajectory", prompts), ("shuffled", shuffled)):
        # Empties the cache, so that neither order finds what the other left.
        sampler.update_weights(None)
        sampler.sample(prompts[:1], SamplingOptions(max_tokens=1))
        before, begun = sampler.prefix_cache(), time.perf_counter()
        for start in range(0, len(order), STEPS_A_CALL):
            sampler.sample(order[start : start + STEPS_A_CALL], SamplingOptions(max_tokens=1))
        seconds = time.perf_counter() - begun
        asked, found = (after - then for after, then in zip(sampler.prefix_cache(), before, strict=True))
        rows.append(
            {
                "order": name,
                "steps": len(order),
                "prompt tokens": asked,
                "found in the cache": found,
                "hit share": round(found / asked, 3),
                "seconds": round(seconds, 1),
            }
        )
    sampler.close()
    return rows


if __name__ == "__main__":
    sys.exit(main())
