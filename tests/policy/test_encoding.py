"""Many steps at once: the ids are those of one step at a time, and each text is tokenised once."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_srl.policy.encoding import SharedIds, StepEncoder, segment_pattern
from swe_srl.policy.model import load_tokenizer
from swe_srl.policy.prompts import PromptOptions, PromptTooLongError, encode_step
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step, Trajectory, Turn

ROOT = Path(__file__).parents[2]
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"properties": {"command": {"type": "string"}}}}}]
# Of the kind that drops earlier thoughts: a step's prompt is not the beginning of the next one's.
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{{ m['content'].split('</think>')[-1] if loop.index0 < messages | length - 2 else m['content'] }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Tokens run over what stands between messages: there is nothing to cut at.
PLAIN_TEXT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}assistant:"

PIECES = ["a", " ", "\n", "é", "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<filename>", "<think>", "parse ", ">\n<|im_"]
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def run(observations: Sequence[str | None], problem: str = "The issue.", id: str = "t") -> Trajectory:
    turns = [Turn("user", problem)]
    for number, text in enumerate(observations):
        action = Action((ToolCall("bash", {"command": f"echo {number}"}),))
        turns.append(Turn("agent", "raw", f"why {number}", action, None if text is None else Observation(text)))
    return Trajectory(id, "task", "mini-swe-agent", "test", tuple(turns))


def one_by_one(steps: Sequence[Step], options: PromptOptions, tokenizer: Any) -> list[list[int] | str]:
    found: list[list[int] | str] = []
    for step in steps:
        try:
            found.append(encode_step(step, TOOLS, options, tokenizer))
        except PromptTooLongError as error:
            found.append(str(error))
    return found


def together(steps: Sequence[Step], options: PromptOptions, tokenizer: Any) -> list[list[int] | str]:
    prompts = StepEncoder(tokenizer, options, lambda step: TOOLS).encode(steps)
    return [str(prompt) if isinstance(prompt, PromptTooLongError) else list(prompt.ids) for prompt in prompts]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    observations=st.lists(st.none() | texts, max_size=7),
    problem=texts,
    last_pairs=st.none() | st.integers(0, 3),
    budget=st.none() | st.integers(80, 500),
    shorten=st.none() | st.integers(0, 8),
    template=st.sampled_from([None, FORGETFUL, PLAIN_TEXT]),
)
def test_the_ids_are_those_of_one_step_at_a_time(
    tokenizer: Any,
    observations: list[str | None],
    problem: str,
    last_pairs: int | None,
    budget: int | None,
    shorten: int | None,
    template: str | None,
) -> None:
    options = PromptOptions(
        last_pairs, max_observation_chars=40, tool_descriptions=False, max_prompt_tokens=budget, shorten_observations_to=shorten
    )
    steps = list(run(observations, problem).steps())
    with pytest.MonkeyPatch.context() as patch:
        if template is not None:
            patch.setattr(tokenizer, "chat_template", template)
        assert together(steps, options, tokenizer) == one_by_one(steps, options, tokenizer)


@pytest.mark.parametrize(
    "options", [PromptOptions(None, 10_000), PromptOptions(2, 10_000), PromptOptions(None, 500, True, 2000, 100)]
)
def test_the_ids_are_the_same_for_a_real_tokenizer(builtin_model: str, options: PromptOptions) -> None:
    steps = [step for run in load([ROOT / "trajectories" / "gridtext-wide-cells.jsonl"]) for step in run.steps()]
    tokenizer = load_tokenizer(builtin_model)
    assert segment_pattern(tokenizer) is not None
    assert together(steps, options, tokenizer) == one_by_one(steps, options, tokenizer)


@pytest.mark.parametrize("source", ["swe_smith_xml/ft_xml_example.jsonl", "openhands/multi_swe_bench__output.jsonl"])
def test_the_ids_are_the_same_for_recorded_runs(builtin_model: str, real_data: Path, source: str) -> None:
    run = load([real_data / "trajectories" / source])[0]
    tokenizer, options = load_tokenizer(builtin_model), PromptOptions(None, 10_000)
    assert together(list(run.steps()), options, tokenizer) == one_by_one(list(run.steps()), options, tokenizer)


class Counting:
    """A tokenizer that counts the characters it tokenises."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.characters = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._tokenizer(text, **options)

    def apply_chat_template(self, messages: Any, **options: Any) -> Any:
        if options.get("tokenize"):
            self.characters += len(self._tokenizer.apply_chat_template(messages, **{**options, "tokenize": False}))
        return self._tokenizer.apply_chat_template(messages, **options)


def test_what_is_tokenised_grows_with_the_length_and_not_with_its_square(tokenizer: Any) -> None:
    options = PromptOptions(last_pairs=None)

    def tokenised(n: int) -> tuple[int, int]:
        """Characters tokenised for n steps, and those of the longest prompt."""
        counting = Counting(tokenizer)
        steps = list(run([f"{i:04}" * 50 for i in range(n)]).steps())
        ids = together(steps, options, counting)[-1]
        return counting.characters, len(tokenizer.decode(ids))

    for n in (10, 40):
        characters, longest = tokenised(n)
        # Once in segments and once whole; the roles' names stand in every segment.
        assert longest < characters <= 2 * longest


def test_steps_share_their_ids_in_memory(tokenizer: Any) -> None:
    steps = list(run(["x" * 100] * 20).steps())
    prompts = StepEncoder(tokenizer, PromptOptions(last_pairs=None), lambda step: TOOLS).encode(steps)
    ids = [prompt.ids for prompt in prompts if not isinstance(prompt, PromptTooLongError)]
    held = {id(part): len(part) for prompt in ids if isinstance(prompt, SharedIds) for part in prompt.parts}
    assert sum(held.values()) <= len(ids[-1])


def test_what_the_budget_cost_is_told(tokenizer: Any) -> None:
    step = list(run(["a" * 40, "b" * 40, "c" * 40, "d"]).steps())[-1]

    def cost(budget: int, shorten: int | None) -> tuple[int, int]:
        options = PromptOptions(None, 1000, False, budget, shorten)
        (prompt,) = StepEncoder(tokenizer, options, lambda step: TOOLS).encode([step])
        assert not isinstance(prompt, PromptTooLongError)
        assert len(prompt.ids) <= budget
        return prompt.left_out, prompt.shortened

    whole = len(encode_step(step, TOOLS, PromptOptions(None, 1000, False), tokenizer))
    assert cost(whole, None) == (0, 0)
    assert cost(whole - 1, None) == (1, 0)
    assert cost(whole, 0) == (0, 0)
    assert cost(whole - 1, 0) == (0, 1)


def test_a_tokenizer_that_joins_across_special_tokens_is_noticed(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that puts something before a text's first word: a segment alone then differs from the same within a text."""
    steps = list(run(["one", "two"]).steps())

    class Leading(Counting):
        def __call__(self, text: str, **options: Any) -> Any:
            return {"input_ids": [7, *self._tokenizer(text, **options)["input_ids"]]}

    leading = Leading(tokenizer)
    options = PromptOptions(last_pairs=None)
    with caplog.at_level(logging.WARNING):
        assert together(steps, options, leading) == one_by_one(steps, options, tokenizer)
    assert "does not cut texts" in caplog.text


def test_a_text_is_cut_only_at_tokens_that_nothing_can_run_over(tokenizer: Any) -> None:
    from tokenizers import AddedToken

    pattern = segment_pattern(tokenizer)
    assert pattern is not None
    assert pattern.findall("<|im_start|>a<|im_end|>b<filename><|endoftext|>") == ["<|im_start|>", "<|im_end|>"]
    overlapped = type(tokenizer)(
        tokenizer_object=type(tokenizer._tokenizer).from_str(tokenizer._tokenizer.to_str()),
        chat_template=tokenizer.chat_template,
    )
    overlapped.add_tokens([AddedToken(">\n<|im_", normalized=False)])
    overlapped.add_special_tokens({"additional_special_tokens": [AddedToken("<|im_end|>", rstrip=True, normalized=False)]})
    assert segment_pattern(overlapped) is None


def test_shared_ids_read_as_a_list() -> None:
    from array import array

    ids = SharedIds([array("i", [1, 2]), array("i"), array("i", [3, 4, 5])])
    assert (list(ids), len(ids), ids[0], ids[-1], ids[1:4]) == ([1, 2, 3, 4, 5], 5, 1, 5, [2, 3, 4])
    assert json.dumps(tuple(ids)) == "[1, 2, 3, 4, 5]"
    with pytest.raises(IndexError):
        ids[5]
