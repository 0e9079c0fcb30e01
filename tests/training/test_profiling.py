"""Profiling: what is sampled, what comes from the cache, and what a recipe keeps by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hand_made import trajectory
from transformers import LlamaForCausalLM

from swe_srl.config import RewardsSection, SamplingSection
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.format import render_action
from swe_srl.recipes import load_recipe
from swe_srl.rewards.compose import build_rewards
from swe_srl.training.data import TrainingStep
from swe_srl.training.difficulty import content_key, read_profile
from swe_srl.training.profiling import STEPS_A_CALL, policy_key, sample_all, weights_digest
from swe_srl.trajectories.storage import write_jsonl

SAMPLING = SamplingSection(samples=3, max_tokens=5)
REWARDS = build_rewards(RewardsSection())
COUNT = 2 * STEPS_A_CALL + 3


def steps(count: int = COUNT) -> list[TrainingStep]:
    run = trajectory("t", "task", [f"echo {k}" for k in range(count)])
    return [TrainingStep(step, render_action(step.action), [9, step.k], ()) for step in run.steps()]


class Sampler:
    """Right in as many of three samples as the step's index modulo 4 says, invalid in the others; may fail at a call."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.prompts: list[list[list[int]]] = []
        self.seeds: list[int] = []
        self.fail_at = fail_at

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        if len(self.prompts) == self.fail_at:
            raise KeyboardInterrupt
        assert (options.n, options.max_tokens, options.temperature) == (3, 5, 1.0)
        self.prompts.append([list(prompt) for prompt in prompts])
        self.seeds.append(options.seed)
        by_k = {item.step.k: item for item in steps()}
        right = [f"<think>\nx\n</think>\n{by_k[prompt[1]].expert}" for prompt in prompts]
        return [
            [Sample((1,), (-1.0,), text if n < prompt[1] % 4 else "", "stop") for n in range(3)]
            for prompt, text in zip(prompts, right, strict=True)
        ]

    def update_weights(self, checkpoint: Path | None) -> None:
        raise AssertionError


def test_every_step_is_sampled_with_its_neighbours_and_known_by_its_content(tmp_path: Path) -> None:
    sampler, moves = Sampler(), []
    found, sampled = sample_all(
        steps(), sampler, SAMPLING, REWARDS, "seed", tmp_path / "cache.jsonl", lambda done, total: moves.append((done, total))
    )
    assert sampled == COUNT
    assert [len(prompts) for prompts in sampler.prompts] == [16, 16, 3]
    assert [prompt for prompts in sampler.prompts for prompt in prompts] == [[9, k] for k in range(COUNT)]
    assert len(set(sampler.seeds)) == 3
    assert moves == [(16, COUNT), (32, COUNT), (COUNT, COUNT)]
    expected = {0: (-1.0, -1.0, -1.0), 1: (1.0, -1.0, -1.0), 2: (1.0, 1.0, -1.0), 3: (1.0, 1.0, 1.0)}
    assert [difficulty.rewards for difficulty in found] == [expected[k % 4] for k in range(COUNT)]
    assert [difficulty.valid for difficulty in found] == [k % 4 for k in range(COUNT)]
    assert [d.content for d in found] == [content_key(item.prompt_ids, item.expert) for item in steps()]


def test_an_interrupted_profile_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    cache, whole = tmp_path / "cache.jsonl", Sampler()
    expected = sample_all(steps(), whole, SAMPLING, REWARDS, "seed", tmp_path / "other.jsonl")[0]
    with pytest.raises(KeyboardInterrupt):
        sample_all(steps(), Sampler(fail_at=1), SAMPLING, REWARDS, "seed", cache)
    with cache.open("a") as file:
        file.write('{"content": "cut sho')
    resumed = Sampler()
    assert sample_all(steps(), resumed, SAMPLING, REWARDS, "seed", cache) == (expected, COUNT - 16)
    assert (resumed.prompts, resumed.seeds) == (whole.prompts[1:], whole.seeds[1:])
    again = Sampler(fail_at=0)
    assert sample_all(steps(), again, SAMPLING, REWARDS, "seed", cache) == (expected, 0)
    assert len(read_profile(cache)) == COUNT


def test_only_new_steps_are_sampled(tmp_path: Path) -> None:
    cache = tmp_path / "cache.jsonl"
    sample_all(steps()[:5] + steps()[7:9], Sampler(), SAMPLING, REWARDS, "seed", cache)
    sampler = Sampler()
    found, sampled = sample_all(steps()[:9], sampler, SAMPLING, REWARDS, "seed", cache)
    assert (sampled, sampler.prompts) == (2, [[[9, 5], [9, 6]]])
    assert [difficulty.valid for difficulty in found] == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_two_steps_of_equal_content_are_sampled_once(tmp_path: Path) -> None:
    sampler = Sampler()
    found, sampled = sample_all([*steps()[:2], steps()[1]], sampler, SAMPLING, REWARDS, "seed", tmp_path / "cache.jsonl")
    assert (sampled, sampler.prompts) == (2, [[[9, 0], [9, 1]]])
    assert found[1] == found[2]


def test_weights_are_known_by_their_content(model: LlamaForCausalLM) -> None:
    before = weights_digest(model)
    assert weights_digest(model) == before
    with torch.no_grad():
        next(model.parameters()).view(-1)[7] += 1e-6
    assert weights_digest(model) != before
    assert weights_digest(model.to(torch.bfloat16)) != before


@pytest.fixture
def recipe(policy_folder: Path, tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "runs.jsonl", [trajectory("a", "lib-1", ["ls", "pwd"]), trajectory("b", "lib-2", ["id"])])
    path = tmp_path / "recipe.toml"
    path.write_text(f"""
[model]
name = "{policy_folder}"
device = "cpu"
[data]
train = ["{tmp_path / "runs.jsonl"}"]
[data.difficulty]
file = "{tmp_path / "profile.jsonl"}"
max_mean = 0.5
[sampling]
samples = 2
max_tokens = 4
[[stages]]
objective = "srl"
updates = 1
lr = 1e-3
""")
    return path


def test_a_policys_key_follows_what_its_rewards_depend_on(recipe: Path, model: LlamaForCausalLM) -> None:
    key = policy_key(load_recipe(recipe), model)
    for same in ("model.name='elsewhere'", "stages.0.lr=1.0", "data.max_train_steps=1"):
        assert policy_key(load_recipe(recipe, [same]), model) == key
    for other in ("sampling.samples=3", "sampling.temperature=0.9", "seed=1"):
        assert policy_key(load_recipe(recipe, [other]), model) != key


def test_the_command_writes_what_the_recipe_then_keeps_steps_by(recipe: Path, tmp_path: Path) -> None:
    def swe_srl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SWE_SRL_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-m", "swe_srl.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    done = swe_srl("profile", recipe, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    # A random model writes nothing valid: every reward is -1, and a bound on the mean keeps all.
    assert (summary["steps"], summary["sampled"], summary["cached"], summary["samples"]) == (3, 3, 0, 2)
    assert (summary["mean_reward"], summary["without_variance"], summary["valid"]) == (-1.0, 3, 0.0)
    assert summary["by_mean_reward"][0] == {"from": -1.0, "steps": 3, "mean_std": 0.0}
    assert "3 steps in" in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "profile.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == ["a@0", "a@1", "b@0"]
    assert [line["rewards"] for line in lines] == [[-1.0, -1.0]] * 3
    # Without any step left, training says why; the profile of other prompts is no profile of these steps.
    refused = swe_srl("train", recipe, "--out", tmp_path / "run", "--set", "data.difficulty.min_std=0.1")
    assert refused.returncode == 1
    assert "no training steps left of 3; left out: 3 because difficulty: the rewards' std is below 0.1" in refused.stderr
