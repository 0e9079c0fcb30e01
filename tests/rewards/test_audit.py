from __future__ import annotations

from collections.abc import Sequence

import pytest

from swe_srl.policy.format import Answer
from swe_srl.rewards.audit import Audited, audit_controls, audit_samples, disagreements, eligible, summary
from swe_srl.rewards.parts import text_parts
from swe_srl.rewards.reward import Unscored
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.model import Step, Trajectory, Turn


def run(task: str, *commands: str, scaffold: str = "mini-swe-agent") -> Trajectory:
    turns = tuple(Turn("agent", "", "", Action((ToolCall("bash", {"command": command}),))) for command in commands)
    return Trajectory(task, task, scaffold, "test", turns)


FIRST, SECOND = run("one", "cat src/a.py", "sed -n '5,9p' src/b.py"), run("two", "make", "make test")


def test_every_control_of_a_step_under_every_reward() -> None:
    steps = list(eligible([FIRST]))
    audited = audit_controls(steps, list(eligible([FIRST, SECOND])), text_parts())
    of_first = [answer for answer in audited if answer.step == "one@0"]
    assert [answer.kind for answer in of_first] == ["expert", "rewritten", "look-alike", "other", *["forged"] * 5]
    assert set(of_first[0].values.values()) == {1.0}
    assert [answer.error for answer in of_first[4:7]] == ["no action", "no action", "several actions"]
    assert {value for answer in of_first[4:7] for value in answer.values.values()} == {-1.0}
    assert of_first[1].values["functional"] == 1.0 > (of_first[1].values["similarity"] or 0)
    found = summary(audited)
    assert (found["steps"], found["answers"]) == (2, 18)
    order = next(row for row in found["orders"] if row["reward"] == "functional")
    assert (order["expert ≥ rewritten"], order["rewritten > look-alike"], order["steps_with_all"]) == (1.0, 1.0, 2)


def answer(kind: str, step: str = "s", error: str | None = None, **values: float | None) -> Audited:
    return Audited(step, kind, "expert", f"{kind} of {step}", error, values)


def test_how_often_the_kinds_are_in_order() -> None:
    right = {"expert": 1.0, "rewritten": 1.0, "look-alike": 0.5, "other": 0.25}
    wrong = {**right, "rewritten": 0.5}
    audited = [answer(kind, "right", r=value) for kind, value in right.items()]
    audited += [answer(kind, "wrong", r=value) for kind, value in wrong.items()]
    audited += [answer("forged", "right", r=-1.0), answer("forged", "right", r=0.125)]
    audited += [answer("forged", "wrong", r=0.5), answer("forged", "wrong", r=None)]
    (row,) = summary(audited)["orders"]
    assert row == {
        "reward": "r",
        "expert ≥ rewritten": 1.0,
        "expert < rewritten": 0.0,
        "rewritten > look-alike": 0.5,
        "rewritten < look-alike": 0.0,
        "look-alike > other": 1.0,
        "look-alike < other": 0.0,
        "other > forged": 0.5,
        "other < forged": 0.5,
        "all": 0.5,
        "steps_with_all": 2,
    }


def test_distributions_leave_out_what_is_invalid_or_unscored() -> None:
    audited = [answer("sample", r=value) for value in (0.0, 0.5, 1.0, 1.0, -1.0, None)]
    (row,) = summary(audited)["distributions"]
    assert row == {
        "reward": "r",
        "kind": "sample",
        "n": 6,
        "unscored": 1,
        "invalid": 1,
        "mean": 0.625,
        "q25": 0.375,
        "median": 0.75,
        "q75": 1.0,
        "zero": 0.25,
        "one": 0.5,
    }


def test_groups_without_variance_and_correlation() -> None:
    audited = [answer("sample", "a", x=0.1, y=1.0, z=0.5), answer("sample", "a", x=0.1, y=0.0, z=0.5)]
    audited += [answer("sample", "b", x=0.9, y=0.5, z=0.5), answer("sample", "b", x=0.2, y=0.25, z=0.5)]
    found = summary(audited)
    assert found["zero_variance_share"] == {"x": 0.5, "y": 0.0, "z": 1.0}
    by_pair = {tuple(row["rewards"]): row["pearson"] for row in found["correlation"]}
    assert by_pair["x", "y"] == pytest.approx(0.03125 / (0.4475 * 0.546875) ** 0.5)
    assert by_pair["x", "z"] is None
    assert found["orders"] == []


def test_the_largest_disagreements_come_first_one_a_step_and_pair() -> None:
    audited = [answer("other", "a", x=0.9, y=0.0), answer("look-alike", "a", x=0.9, y=0.4)]
    audited += [answer("other", "b", x=0.1, y=1.0), answer("forged", "c", "no action", x=-1.0, y=1.0)]
    audited += [answer("other", "d", x=None, y=1.0)]
    assert [(row["step"], row["kind"], row["rewards"]) for row in disagreements(audited)] == [
        ("a", "other", {"x": 0.9, "y": 0.0}),
        ("b", "other", {"x": 0.1, "y": 1.0}),
    ]


def test_samples_of_a_run() -> None:
    steps = {step.id: step for step in eligible([FIRST])}
    text = "<think>Look.</think><function=bash><parameter=command>cat src/a.py</parameter></function>"
    groups = [
        {"step": "one@0", "samples": [{"text": text, "finish": "stop"}, {"text": text, "finish": "length"}]},
        {"step": "gone@3", "samples": []},
    ]

    def lost(pairs: Sequence[tuple[Step, Answer]]) -> list[float | Unscored]:
        return [Unscored("lost")] * len(pairs)

    audited, unknown = audit_samples(groups, steps, {**text_parts(), "effect": lost})
    assert unknown == ["gone@3"]
    assert summary(audited)["unscored_because"] == {"effect: lost": 1}
    assert [(a.kind, a.error, a.values["functional"], a.values["effect"]) for a in audited] == [
        ("sample", None, 1.0, None),
        ("sample", "truncated output", -1.0, -1.0),
    ]


def test_steps_that_no_answer_can_be_given_to_are_left_out() -> None:
    two = Trajectory(
        "t", "t", "mini-swe-agent", "test", (Turn("agent", "", "", Action((ToolCall("bash", {"command": "a"}),) * 2)),)
    )
    closing = run("t", "echo '</parameter>'", "ls")
    assert [step.id for step in eligible([two, closing, run("x", "ls", scaffold="unknown")])] == ["t@1"]
