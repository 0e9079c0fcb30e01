from collections import Counter
from pathlib import Path

import pytest
from hand_made import trajectory
from transformers import PreTrainedTokenizerFast

from swe_srl.config import DataSection, ModelSection, PromptSection, Recipe, SftStage, SrlStage
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.training import data
from swe_srl.training.data import StepOrder, check_context, load_dataset, split
from swe_srl.training.difficulty import Difficulty, content_key, write_profile


def section(**options: object) -> DataSection:
    return DataSection.model_validate({"train": ["t"], **options})


def test_the_split_is_by_task() -> None:
    runs = [trajectory("a1", "grid-1"), trajectory("a2", "grid-1"), trajectory("b", "ini-1"), trajectory("c", "grid-2")]
    train, held_out = split(runs, [], section(hold_out_tasks=["grid-*"]))
    assert [t.id for t in train] == ["b"]
    assert [t.id for t in held_out] == ["a1", "a2", "c"]


def test_tasks_of_validation_files_leave_training() -> None:
    runs = [trajectory("a1", "grid-1"), trajectory("b", "ini-1")]
    train, held_out = split(runs, [trajectory("a2", "grid-1")], section())
    assert [t.id for t in train] == ["b"]
    assert [t.id for t in held_out] == ["a2", "a1"]


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"hold_out_tasks: 'gird-\*' matches none of the 1 tasks \(such as grid-1\)"):
        split([trajectory("a", "grid-1")], [], section(hold_out_tasks=["gird-*"]))


def test_unresolved_runs_can_be_left_out() -> None:
    runs = [trajectory("a", "t1", resolved=True), trajectory("b", "t2", resolved=False), trajectory("c", "t3", resolved=None)]
    assert [t.id for t in split(runs, [], section(only_resolved=True))[0]] == ["a"]


def recipe(prompt: PromptSection | None = None, **options: object) -> Recipe:
    stages = [SftStage(objective="sft", updates=1, lr=1.0), SrlStage(objective="srl", updates=1, lr=1.0)]
    return Recipe(model=ModelSection(name="m"), data=section(**options), prompt=prompt or PromptSection(), stages=list(stages))


def test_what_cannot_be_used_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    two_calls = Action((ToolCall("bash", {"command": "ls"}), ToolCall("bash", {"command": "pwd"})))
    unwritable = Action((ToolCall("bash", {"command": "echo '</parameter>'"}),))
    runs = [
        trajectory("a", "t1", commands=["ls", two_calls, unwritable, ("", "pwd")]),
        trajectory("b", "t2", problem="x" * 5000),
        trajectory("c", "held", problem="y" * 5000),
        trajectory("d", "held"),
    ]
    monkeypatch.setattr(data, "load", lambda paths: runs)
    dataset = load_dataset(recipe(PromptSection(max_prompt_tokens=4000), hold_out_tasks=["held"]), tokenizer)
    assert [item.step.id for item in dataset.train] == ["a@0", "a@3"]
    assert [item.step.id for item in dataset.for_objective("sft")] == ["a@0"]
    assert [step.id for step in dataset.validation] == ["d@0", "d@1"]
    assert dataset.dropped == Counter(
        {
            "the action cannot be written as one answer": 2,
            "the thought cannot be written (sft only)": 1,
            "the prompt is longer than 4000 tokens": 2,
            "validation: the prompt is longer than 4000 tokens": 2,
        }
    )
    item = dataset.train[0]
    assert item.expert == "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    assert tokenizer.decode(list(item.target_ids)) == f"<think>\nthought\n</think>\n{item.expert}<|im_end|>"
    assert tokenizer.decode(list(item.prompt_ids)).endswith("<|im_start|>assistant\n")


COMMANDS = [
    "cat a.py",
    "sed -i s/a/b/ a.py",
    "pytest",
    "echo MINI_SWE_AGENT_FINAL_OUTPUT",
    "ls",
    "echo MINI_SWE_AGENT_FINAL_OUTPUT",
]


@pytest.mark.parametrize(
    ("rules", "kept", "left_out"),
    [
        ({}, [0, 1, 2, 3, 4, 5], {}),
        ({"last_submit": False}, [0, 1, 2, 3, 4], {"the submit that ends a run (data.last_submit)": 1}),
        (
            {"targets": ["edit", "submit", "other"]},
            [1, 2, 3, 5],
            {"the action's kind is read, which is not in data.targets": 2},
        ),
        (
            {"targets": ["edit"]},
            [1],
            {
                "the action's kind is other, which is not in data.targets": 1,
                "the action's kind is read, which is not in data.targets": 2,
                "the action's kind is submit, which is not in data.targets": 2,
            },
        ),
    ],
)
def test_the_recipe_says_which_steps_are_targets(
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: PreTrainedTokenizerFast,
    rules: dict[str, object],
    kept: list[int],
    left_out: dict[str, int],
) -> None:
    runs = [trajectory("a", "t1", COMMANDS), trajectory("b", "held", COMMANDS)]
    monkeypatch.setattr(data, "load", lambda paths: runs)
    dataset = load_dataset(recipe(hold_out_tasks=["held"], **rules), tokenizer)
    assert [item.step.id for item in dataset.train] == [f"a@{k}" for k in kept]
    assert [step.id for step in dataset.validation] == [f"b@{k}" for k in kept]
    assert dataset.summary()["left_out"] == left_out | {f"validation: {reason}": n for reason, n in left_out.items()}


def test_a_last_step_that_is_no_submit_stays(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", ["ls", "pytest"]), trajectory("b", "t2", COMMANDS)])
    dataset = load_dataset(recipe(last_submit=False), tokenizer)
    assert [item.step.id for item in dataset.train] == ["a@0", "a@1", "b@0", "b@1", "b@2", "b@3", "b@4"]


def test_prompts_that_the_budget_cut_are_counted(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", ["ls"] * 4)])
    whole = [len(item.prompt_ids) for item in load_dataset(recipe(), tokenizer).train]
    dataset = load_dataset(recipe(PromptSection(max_prompt_tokens=whole[2])), tokenizer)
    assert [len(item.prompt_ids) for item in dataset.train] == [whole[0], whole[1], whole[2], whole[2]]
    assert dataset.summary()["cut_prompts"] == {"pairs left out to fit": 1}


def test_no_steps_left_says_why(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1")])
    with pytest.raises(UserError, match="no training steps left of 2; left out: 2 because the prompt is longer than 10 tokens"):
        load_dataset(recipe(PromptSection(max_prompt_tokens=10)), tokenizer)
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", commands=[("", "ls")])])
    dataset = load_dataset(recipe(), tokenizer)
    with pytest.raises(UserError, match="no steps left for the sft stage; left out: 1 because the thought cannot be written"):
        dataset.for_objective("sft")


def test_a_prompt_that_leaves_no_room_for_its_answer_is_refused(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", ["ls"])])
    dataset = load_dataset(recipe(), tokenizer)
    prompt, sampled = len(dataset.train[0].prompt_ids), recipe().sampling.max_tokens
    check_context(dataset, recipe(), prompt + sampled)
    check_context(dataset, recipe(), None)
    with pytest.raises(UserError, match=rf"a@0: a prompt of {prompt} tokens and its answer need {prompt + sampled}, more than"):
        check_context(dataset, recipe(), prompt + sampled - 1)


def test_limits_draw_with_the_seed_and_keep_the_order(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", commands=[f"echo {i}" for i in range(9)])])
    drawn = [[item.step.k for item in load_dataset(recipe(max_train_steps=4), tokenizer).train] for _ in range(2)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert len(drawn[0]) == 4


def test_a_limit_is_filled_with_usable_steps_and_no_more_are_encoded(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    unwritable = Action((ToolCall("bash", {"command": "echo '</parameter>'"}),))
    commands = [f"echo {i}" if i % 2 else unwritable for i in range(400)]
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", commands=commands)])
    dataset = load_dataset(recipe(max_train_steps=4), tokenizer)
    assert [item.step.k % 2 for item in dataset.train] == [1, 1, 1, 1]
    assert dataset.dropped.total() < 40


def test_the_order_takes_each_step_once_an_epoch_and_resumes_at_a_position() -> None:
    order = StepOrder(5, "0/1")
    taken = [index for size in (2, 4, 4, 5) for index in order.take(size)]
    assert order.position == 15
    assert [sorted(taken[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3
    assert taken[:5] != taken[5:10] or taken[5:10] != taken[10:]
    assert StepOrder(5, "0/1", position=7).take(8) == taken[7:]
    assert StepOrder(50, "0/1").take(50) != StepOrder(50, "0/2").take(50)


def test_steps_are_kept_by_their_difficulty(
    monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    monkeypatch.setattr(data, "load", lambda paths: [trajectory("a", "t1", ["ls", "pwd", "id"]), trajectory("h", "held")])
    items = load_dataset(recipe(hold_out_tasks=["held"]), tokenizer).train
    rewards = [(0.0, 1.0), (1.0, 1.0)]
    rows = [Difficulty(content_key(i.prompt_ids, i.expert), r, 2).to_json() for i, r in zip(items, rewards, strict=False)]
    write_profile(tmp_path / "profile.jsonl", rows)
    difficulty = {"file": str(tmp_path / "profile.jsonl"), "min_std": 0.1}
    dataset = load_dataset(recipe(hold_out_tasks=["held"], difficulty=difficulty), tokenizer)
    assert [item.step.id for item in dataset.train] == ["a@0"]
    assert [step.id for step in dataset.validation] == ["h@0", "h@1"]
    assert dataset.dropped == Counter(
        {
            "difficulty: the rewards' std is below 0.1": 1,
            f"difficulty: the step, prompted like this, is not in {tmp_path}/profile.jsonl": 1,
        }
    )
    other = PromptSection(tool_descriptions=False)
    with pytest.raises(UserError, match="no training steps left of 3; left out: 3 because difficulty: the step, prompted like"):
        load_dataset(recipe(other, hold_out_tasks=["held"], difficulty=difficulty), tokenizer)
