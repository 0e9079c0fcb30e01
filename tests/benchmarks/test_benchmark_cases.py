from collections.abc import Callable
from types import ModuleType

import pytest


def test_steps_share_their_beginning(benchmark: Callable[[str], ModuleType]) -> None:
    cases = benchmark("cases")
    shape = cases.Shape(3, 4, 20, 5)
    made = cases.batch(shape, 1000)
    assert [len(prompt) for prompt in made["prompts"]] == shape.ends == [6, 13, 20]
    assert all(made["prompts"][-1][: len(prompt)] == prompt for prompt in made["prompts"])
    assert [[len(answer) for answer in group] for group in made["answers"]] == [[5] * 4] * 3
    assert [sum(group) for group in made["advantages"]] == pytest.approx([0, 0, 0])
    examples = cases.examples_of(made)
    assert shape.separate_tokens == sum(map(len, examples)) == 4 * (39 + 15)
    assert examples[5].prompt_ids == made["prompts"][1]
    assert (examples[5].answer_ids, examples[5].advantage) == (made["answers"][1][1], made["advantages"][1][1])


def test_a_seed_gives_one_batch(benchmark: Callable[[str], ModuleType]) -> None:
    cases = benchmark("cases")
    shape = cases.Shape(2, 2, 9, 3)
    assert cases.batch(shape, 50) == cases.batch(shape, 50) != cases.batch(shape, 50, seed=1)
