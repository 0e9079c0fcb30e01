from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.samplers.vllm_requests import request, stopped, trajectory_order


def test_a_request_leaves_nothing_to_defaults() -> None:
    options = SamplingOptions(n=4, temperature=0.7, max_tokens=9, stop=("</function>",), seed=3)
    fields = request(options, 2, {7, 2})
    seed = fields.pop("seed")
    assert fields == {
        "n": 4,
        "temperature": 0.7,
        "max_tokens": 9,
        "stop": ["</function>"],
        "include_stop_str_in_output": True,
        "stop_token_ids": [2, 7],
        "logprobs": 0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert seed == request(options, 2, ())["seed"]


def test_no_two_samples_of_a_call_draw_with_one_seed() -> None:
    seeds = [request(SamplingOptions(n=8, seed=s), place, ())["seed"] for s in range(4) for place in range(64)]
    assert all(0 <= seed < 2**62 for seed in seeds)
    # vLLM gives sample s of a prompt the prompt's seed + s.
    assert min(b - a for a, b in pairwise(sorted(seeds))) > 8


def test_the_steps_of_a_trajectory_come_together_in_their_order() -> None:
    trajectories = [[[system, *range(10, 10 + 3 * k)] for k in range(5)] for system in (1, 2, 3)]
    prompts = [prompt for steps in trajectories for prompt in steps]
    random.Random(0).shuffle(prompts)
    assert [prompts[i] for i in trajectory_order(prompts)] == [prompt for steps in trajectories for prompt in steps]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), max_size=12))
def test_every_prompt_comes_once_and_after_the_longest_of_its_prefixes(prompts: list[list[int]]) -> None:
    order = trajectory_order(prompts)
    assert sorted(order) == list(range(len(prompts)))
    ordered = [prompts[i] for i in order]
    for k, prompt in enumerate(ordered):
        prefixes = [other for other in prompts if len(other) < len(prompt) and prompt[: len(other)] == other]
        assert all(other in ordered[:k] for other in prefixes)


def test_a_finish_reason_is_a_stop_a_limit_or_a_failure() -> None:
    assert (stopped("stop"), stopped("length")) == (True, False)
    for reason in ("abort", "error", "None"):
        with pytest.raises(RuntimeError, match=f"did not finish a sample: {reason}"):
            stopped(reason)
