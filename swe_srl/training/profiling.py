"""Sampling every training step of a recipe to see how hard it is for the recipe's model.

Invariant: nothing is sampled twice. What was sampled is in the cache as soon as its call returns, under the policy's content
(its weights, how it samples, how it is rewarded) and the step's; a profile that was interrupted goes on there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from swe_srl import __version__
from swe_srl.cache import cache_folder
from swe_srl.config import Recipe, SamplingSection
from swe_srl.errors import UserError
from swe_srl.policy.base import Sampler
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.rewards.compose import Rewards, build_rewards
from swe_srl.training.data import StepOrder, TrainingStep, check_context, load_dataset
from swe_srl.training.devices import one_process, open_device
from swe_srl.training.difficulty import Difficulty, content_key, read_profile, write_profile
from swe_srl.training.groups import GroupSource
from swe_srl.training.opening import Where
from swe_srl.training.processes import ALONE

STEPS_A_CALL = 16
_BINS = (-1.0, 0.0, 0.2, 0.4, 0.6, 0.8)
"""Lower ends of the mean rewards that a summary counts together."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile and how it came about."""

    file: Path
    difficulties: Sequence[Difficulty]
    sampled: int
    """Steps that were not in the cache."""

    def to_json(self) -> dict[str, Any]:
        """Counts, means and the table of mean rewards."""
        found = self.difficulties
        return {
            "file": str(self.file),
            "steps": len(found),
            "sampled": self.sampled,
            "cached": len(found) - self.sampled,
            "samples": len(found[0].rewards),
            "mean_reward": fmean(d.mean for d in found),
            "mean_std": fmean(d.std for d in found),
            "without_variance": sum(d.std == 0 for d in found),
            "valid": fmean(d.valid / len(d.rewards) for d in found),
            "by_mean_reward": [self._bin(i) for i in range(len(_BINS))],
        }

    def _bin(self, index: int) -> dict[str, Any]:
        low = _BINS[index]
        high = _BINS[index + 1] if index + 1 < len(_BINS) else float("inf")
        inside = [d for d in self.difficulties if low <= d.mean < high]
        return {"from": low, "steps": len(inside), "mean_std": fmean(d.std for d in inside) if inside else None}


def profile(
    recipe: Recipe,
    to: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Profile:
    """Profile every training step of a recipe under its model and write the profile to `to`.

    The recipe's own [data.difficulty] is left out: it would keep what it is about to judge.

    Args:
        progress: called with steps done and steps in all.

    Raises:
        UserError: the data or the device do not fit the recipe.
    """
    one_process("profile")
    device = str(open_device(recipe.model).device)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"difficulty": None})})
    model, tokenizer = load_policy(recipe.model.name, dtype=torch.float32, device=device)
    dataset = load_dataset(recipe, tokenizer)
    check_context(dataset, recipe, getattr(model.config, "max_position_embeddings", None))
    cache = cache_folder("difficulty") / f"{policy_key(recipe, model)}.jsonl"
    with ExitStack() as stack:
        nodes = stack.enter_context(Where.of(recipe.cluster).open(ALONE, say))
        rewards = build_rewards(recipe.rewards, nodes)
        opened = open_sampler(recipe.sampling, model, tokenizer, nodes.cluster if nodes else None)
        sampler, seed = stack.enter_context(closing(opened)), f"{recipe.seed}/profile"
        found, sampled = sample_all(dataset.train, sampler, recipe.sampling, rewards, seed, cache, progress)
    rows = ({"step": item.step.id, **d.to_json()} for item, d in zip(dataset.train, found, strict=True))
    write_profile(to, rows)
    return Profile(to, found, sampled)


def sample_all(
    items: Sequence[TrainingStep],
    sampler: Sampler,
    sampling: SamplingSection,
    rewards: Rewards,
    seed: str,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Difficulty], int]:
    """The difficulty of each step, from the cache or sampled; and how many were sampled.

    Each call to the sampler takes neighbours, which share their prefix, and has a seed of its own.
    """
    known = read_profile(cache) if cache.exists() else {}
    write_profile(cache, (d.to_json() for d in known.values()))  # without a line that a killed process left unfinished
    keys = [content_key(item.prompt_ids, item.expert) for item in items]
    sampled = 0
    for start in range(0, len(items), STEPS_A_CALL):
        call = slice(start, start + STEPS_A_CALL)
        missing = {key: item for key, item in zip(keys[call], items[call], strict=True) if key not in known}
        if missing:
            found = _sample(missing, sampler, sampling, rewards, f"{seed}/{start}")
            with cache.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(d.to_json()) + "\n" for d in found)
            known.update((d.content, d) for d in found)
            sampled += len(found)
        progress(min(start + STEPS_A_CALL, len(items)), len(items))
    return [known[key] for key in keys], sampled


def policy_key(recipe: Recipe, model: Any) -> str:
    """The name of a policy with all that its rewards depend on besides the steps."""
    options = recipe.model_dump(include={"sampling", "rewards"})
    text = json.dumps([__version__, recipe.seed, options, weights_digest(model)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def weights_digest(model: Any) -> str:
    """A hash of a model's weights, whatever it is called and wherever it lies."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _sample(
    missing: dict[str, TrainingStep], sampler: Sampler, sampling: SamplingSection, rewards: Rewards, seed: str
) -> list[Difficulty]:
    items = list(missing.values())
    in_order = StepOrder(len(items), seed, blocks=[range(len(items))])
    groups = GroupSource(items, in_order, sampler, sampling, rewards, seed).draw(len(items))
    for group in groups:
        if not group.rewards:
            raise UserError(
                f"{group.item.step.id}: no answer could be scored ({group.scored[0].unscored}); run the command again"
            )
    return [Difficulty(key, tuple(group.rewards), len(group.valid_rewards)) for key, group in zip(missing, groups, strict=True)]
