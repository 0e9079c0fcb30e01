"""What rollouts earn, which of them are masked, and what they are to the loss: one sample each, however many turns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hand_made import trajectory
from tiny_models import tiny_llama, tiny_tokenizer

from swe_srl.config import OutcomeStage
from swe_srl.environments.fidelity import Tested
from swe_srl.environments.task import Task, task_from_row
from swe_srl.policy.prompts import PromptOptions, encode_answer, encode_step
from swe_srl.rollouts.record import RolloutRecord, with_record
from swe_srl.rollouts.starts import Start
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action
from swe_srl.training.filtering import Filled
from swe_srl.training.logprobs import Example, Part, SequenceEngine
from swe_srl.training.losses import BatchSize, aggregate
from swe_srl.training.objective import Objective, mini_batches
from swe_srl.training.rollout_groups import (
    RolloutGroup,
    examples_of_rollouts,
    rollout_metrics,
    rollout_records,
    score_rollout,
)
from swe_srl.training.tree.engine import TreeEngine
from swe_srl.training.tree.planning import plan_tree
from swe_srl.trajectories.model import Sampled, Trajectory, Turn


def stage(**options: Any) -> OutcomeStage:
    return OutcomeStage(objective="outcome", updates=1, lr=1.0, tasks=["tasks"], **options)


def task(f2p: tuple[str, ...] = ("a", "b"), p2p: tuple[str, ...] = ("c",)) -> Task:
    from pathlib import Path

    row = {"id": "t", "source": {"path": "."}, "test_command": "true", "test_patch": "x"}
    return task_from_row({**row, "fail_to_pass": list(f2p), "pass_to_pass": list(p2p)}, Path())


def rollout(failing: tuple[str, ...] = (), *, turns: int = 2, end: str = "submitted", **record: Any) -> Trajectory:
    """A rollout of two-token answers whose tests say that these fail."""
    made = trajectory("t@0-rollout-0", "t", [f"ls {i}" for i in range(turns)])
    own = [
        replace(turn, sampled=Sampled(3 + i, 2, tuple(range(3 + i)), (7, 8), (-0.5, -0.25))) if turn.role == "agent" else turn
        for i, turn in enumerate(made.turns)
    ]
    passed = 2 - sum(t in failing for t in "ab"), 1 - ("c" in failing)
    tests = Tested(not failing, passed[0], 2, passed[1], 1, failing)
    said = RolloutRecord(**{"key": "", "attempt": 0, "start": {"from": "issue"}, "tests": tests, **record})
    return with_record(replace(made, turns=tuple(own), exit_status=end), said)


LATE = Tested(False, 0, 2, 0, 1, ("a", "b", "c"), "late", timed_out=True, runs=2)


@pytest.mark.parametrize(
    ("failing", "all_or_nothing", "partial"),
    [((), 1.0, 1.0), (("b",), 0.0, 0.5), (("a", "b"), 0.0, 0.0), (("c",), 0.0, 0.0)],
)
def test_the_reward_is_what_the_tests_say(failing: tuple[str, ...], all_or_nothing: float, partial: float) -> None:
    assert score_rollout(rollout(failing), task(), stage()).reward == all_or_nothing
    assert score_rollout(rollout(failing), task(), stage(partial=True)).reward == partial


@pytest.mark.parametrize(
    ("made", "reward", "masked"),
    [
        (rollout(end="sandbox_fault", tests=None, error="the sandbox is gone"), None, "sandbox_fault"),
        (rollout(end="policy_fault", tests=None, error="no answer"), None, "policy_fault"),
        (rollout(end="context"), None, "ended by context"),
        (rollout(tests=Tested(None, 0, 2, 0, 1, reason="the test patch does not apply")), None, "not tested"),
        (rollout(tests=None), None, "not tested"),
        (rollout(tests=Tested(None, 0, 2, 1, 1, reason="flaky", flaky=("a", "b"), runs=2)), None, "flaky tests"),
        (rollout(tests=Tested(True, 1, 2, 1, 1, flaky=("a",), runs=2)), 1.0, None),
        (rollout(tests=Tested(False, 0, 2, 0, 1, ("c",), flaky=("a", "b"), runs=2)), 0.0, None),
        (rollout(tests=LATE), None, "tests timed out"),
        (rollout(tests=Tested(False, 0, 2, 0, 1, reason="no repository is left")), 0.0, None),
        (rollout(("a",), end="steps"), 0.0, None),
        (rollout(end="tokens"), 1.0, None),
    ],
)
def test_what_says_nothing_of_the_policy_is_masked(made: Trajectory, reward: float | None, masked: str | None) -> None:
    scored = score_rollout(made, task(), stage())
    assert (scored.reward, scored.masked) == (reward, masked)


def test_which_ends_are_masked_is_configured() -> None:
    assert score_rollout(rollout(("a",), end="context"), task(), stage(masked_ends=[])).reward == 0.0
    assert score_rollout(rollout(end="tokens"), task(), stage(masked_ends=["tokens"])).masked == "ended by tokens"
    assert score_rollout(rollout(tests=LATE), task(), stage(mask_timed_out_tests=False)).reward == 0.0


def test_a_flaky_test_has_no_part_in_a_partial_reward() -> None:
    """Of a, b and d one is flaky and one passes."""
    found = Tested(False, 1, 3, 1, 1, ("d",), flaky=("a",), runs=2)
    assert score_rollout(rollout(tests=found), task(f2p=("a", "b", "d")), stage(partial=True)).reward == 0.5


def group(*made: Trajectory) -> RolloutGroup:
    return RolloutGroup(Start(trajectory("t@0", "t", [])), (), [score_rollout(each, task(), stage()) for each in made])


GROUP = group(rollout(turns=3), rollout(("a",), turns=1), rollout(end="context", turns=2), rollout(("b",), turns=1))


def test_a_masked_rollout_is_no_part_of_its_group() -> None:
    assert GROUP.rewards == [1.0, 0.0, 0.0]
    assert GROUP.advantages(stage(std_normalisation=False)) == [
        pytest.approx(2 / 3),
        pytest.approx(-1 / 3),
        None,
        pytest.approx(-1 / 3),
    ]
    assert group(rollout(end="context")).advantages(stage()) == [None]


def test_every_turn_is_an_example_with_its_rollouts_advantage() -> None:
    examples = examples_of_rollouts([GROUP, GROUP], stage(std_normalisation=False))
    assert [round(example.advantage, 3) for example in examples] == [0.667] * 3 + [-0.333] * 2 + [0.667] * 3 + [-0.333] * 2
    assert [(e.part.group, e.part.sample, e.part.tokens) for e in examples if e.part] == [
        *[(0, 0, 6)] * 3,
        *[(0, 1, 2), (0, 2, 2)],
        *[(1, 3, 6)] * 3,
        *[(1, 4, 2), (1, 5, 2)],
    ]
    assert [list(e.prompt_ids) for e in examples[:3]] == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5]]
    assert [list(e.sampler_logprobs or ()) for e in examples[:1]] == [[-0.5, -0.25]]


def test_an_experts_turns_and_answers_without_tokens_are_no_examples() -> None:
    made = rollout(turns=2)
    experts = replace(made.turns[1], context_only=True)
    silent = Turn("agent", "?", action=Action(error="no action"), sampled=Sampled(5, 0))
    scored = score_rollout(replace(made, turns=(made.turns[0], experts, made.turns[2], silent)), task(), stage())
    assert [list(example.answer_ids) for example in scored.sampled] == [[7, 8]]


# Two rollouts: one of two turns (losses 3 4 and 5), one of one turn (5).
MASK = torch.tensor([[True, True], [True, False], [True, False]])
LOSSES = torch.tensor([[3.0, 4.0], [5.0, 99.0], [5.0, 99.0]])
PARTS = [Part(0, 0, 3), Part(0, 0, 3), Part(0, 1, 1)]
ROWS = [Example([1], [7, 7], part=PARTS[0]), Example([1], [7], part=PARTS[1]), Example([1], [7], part=PARTS[2])]


@pytest.mark.parametrize(
    ("how", "batch"),
    [
        ("sequence", ((3 + 4 + 5) / 3 + 5) / 2),
        ("token", (3 + 4 + 5 + 5) / 4),
        ("constant", (3 + 4 + 5 + 5) / (2 * 8)),
    ],
)
def test_a_rollout_is_one_sample_to_the_loss(how: str, batch: float) -> None:
    size = BatchSize.of(ROWS)
    assert size == BatchSize(sequences=3, tokens=4, samples=2)
    found = aggregate(LOSSES, MASK, how, size, 8, torch.tensor([3, 3, 1]))  # type: ignore[arg-type]
    assert found.mean().item() == pytest.approx(batch)


def test_turns_weigh_as_their_tokens_in_one_sequence_would() -> None:
    """With a policy gradient, a rollout in two rows has the gradient of its tokens in one row of the same context."""
    model = tiny_llama()
    prompt, first, seen, second = [5, 6, 7], [11, 12, 13], [20, 21], [14]
    turns = [
        Example(prompt, first, 2.0, part=Part(0, 0, 4)),
        Example([*prompt, *first, *seen], second, 2.0, part=Part(0, 0, 4)),
        Example(prompt, [30, 31], -1.0, part=Part(0, 1, 2)),
    ]

    def gradient(engine: Any, weights: list[float]) -> torch.Tensor:
        model.zero_grad()
        if not weights:
            engine.backward(model, turns, Objective(stage(), 99).loss_fn(turns))
        else:  # the definition, token by token: (1 / 2) Σ_rollouts (1 / tokens) Σ_tokens -A log p
            logprobs = [engine._score(model, [turn])[0].sum() for turn in turns]
            sum(w * row for w, row in zip(weights, logprobs, strict=True)).backward()  # type: ignore[union-attr]
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    expected = gradient(SequenceEngine(512), [-2.0 / 4 / 2, -2.0 / 4 / 2, 1.0 / 2 / 2])
    for engine in (SequenceEngine(512), SequenceEngine(1), TreeEngine(512)):
        torch.testing.assert_close(gradient(engine, []), expected, rtol=1e-4, atol=1e-6)


def test_mini_batches_are_cut_between_starts() -> None:
    parts = mini_batches(examples_of_rollouts([GROUP, GROUP], stage()), 2)
    assert [[e.part.group for e in part if e.part] for part in parts] == [[0] * 5, [1] * 5]


def test_the_metrics_cover_every_rollout_and_judge_only_those_that_can_be() -> None:
    flagged = rollout(("a",), turns=1, flags=("reaches_network: curl", "reaches_network: wget", "edits_tests: x"))
    found = rollout_metrics(Filled([GROUP], [group(flagged)], refills=1), stage(steps_per_update=2))
    expected = {
        "reward_mean": 0.25,
        "reward_by_part": {"fail_to_pass": (1 + 0.5 + 0.5 + 0.5) / 4, "pass_to_pass": 1.0},
        "resolved": 0.25,
        "rollouts": 5,
        "masked": 1,
        "masked_because": {"ended by context": 1},
        "ends": {"context": 1, "submitted": 4},
        "flags": {"edits_tests": 1, "reaches_network": 1},
        "format_validity": 1.0,
        "groups_kept": 1,
        "groups_dropped": 1,
        "refills": 1,
        "batch_full": False,
        "turns_mean": 8 / 5,
        "turns_max": 3,
        "answer_tokens_mean": 2.0,
        "rollout_tokens_mean": 16 / 5,
        "steps_left_mean": None,
    }
    assert {name: found[name] for name in expected} == expected


def test_a_record_holds_each_rollout_with_what_it_did_and_was_shown() -> None:
    [record] = rollout_records(Filled([GROUP]), stage())
    first, _, masked, _ = record["samples"]
    assert (record["step"], record["kept"], record["expert"]) == ("t@0", True, "")
    assert first["action"].count("<function=bash>") == 3
    assert first["turns"][0] == {"text": "as written", "observation": "done", "tokens": 2}
    assert (first["reward"], first["resolved"], first["finish"], first["tokens"]) == (1.0, True, "submitted", 6)
    assert (masked["unscored"], masked["reward"], masked["advantage"]) == ("ended by context", None, None)


def test_the_turns_of_a_rollout_share_one_trunk() -> None:
    """Each turn's prompt extends the former's with its answer, so that the tree computes the prompts of a rollout once."""
    tokenizer, options = tiny_tokenizer(), PromptOptions(last_pairs=None, tool_descriptions=False)
    made = trajectory("r", "t", [f"cat file-{i}.py" for i in range(6)])
    steps = list(made.steps())
    prompts = [encode_step(step, get_scaffold("mini-swe-agent").tools, options, tokenizer) for step in steps]
    answers = [encode_answer(step.turn.thought, step.action, tokenizer) for step in steps]
    for (prompt, answer), extended in zip(zip(prompts, answers, strict=True), prompts[1:], strict=False):
        assert extended[: len(prompt) + len(answer)] == prompt + answer
    [trunk] = plan_tree(prompts, answers).children
    assert trunk.children == []
    assert [(branch.limit, branch.unscored) for branch in trunk.branches] == [(len(prompt) - 1, 1) for prompt in prompts]
    computed = len(trunk.ids) + sum(len(branch.ids) for branch in trunk.branches)
    assert computed == len(prompts[-1]) - 1 + sum(len(answer) + 1 for answer in answers)
    assert computed * 3 < sum(map(len, prompts)) + sum(map(len, answers))
