from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from swe_srl.policy.format import parse_answer
from swe_srl.rewards import functional
from swe_srl.rewards.audit import eligible
from swe_srl.rewards.controls import HUGE, KINDS, THOUGHT, controls, forged, look_alike, rewritten
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step, Trajectory, Turn


def steps(*commands: str, scaffold: str = "mini-swe-agent", task: str = "task") -> list[Step]:
    turns = tuple(Turn("agent", "", "", Action((ToolCall("bash", {"command": command}),))) for command in commands)
    return list(Trajectory(task, task, scaffold, "test", turns).steps())


def edit(**arguments: Any) -> Step:
    action = Action((ToolCall("str_replace_editor", arguments),))
    return next(Trajectory("t", "task", "swe-agent", "test", (Turn("agent", "", "", action),)).steps())


def every(rule: Any, step: Step) -> set[str]:
    """Every command that a rule ever makes of a step."""
    made = [rule(step, random.Random(seed)) for seed in range(60)]
    return {action.call.arguments["command"] for action in made if action is not None}


@pytest.mark.parametrize(
    ("command", "made"),
    [
        ("cat a.py", {"cat 'a.py'", "cat ./a.py", "cd /testbed && cat a.py", "sed -n '1,$p' a.py"}),
        ("cd /testbed && ls", {"ls"}),
        ("grep -rn 'x' src", {'grep -rn "x" src', "cd /testbed && grep -rn 'x' src", "grep -n -r 'x' src"}),
        ("sed -n '5,9p' f", {'sed -n "5,9p" f', "cd /testbed && sed -n '5,9p' f", "head -n 9 f | tail -n +5"}),
        ("sed -i 's/a b/c/g' f", {"cd /testbed && sed -i 's/a b/c/g' f", 'sed -i "s/a b/c/g" f', "perl -pi -e 's/a b/c/g' f"}),
        ("cat <<'E' > f\nx\nE", {"cd /testbed && cat <<'E' > f\nx\nE", "cat > f <<'E'\nx\nE"}),
        ('echo "$HOME"', {'cd /testbed && echo "$HOME"'}),
    ],
)
def test_the_same_in_other_words(command: str, made: set[str]) -> None:
    assert every(rewritten, steps(command)[0]) == made


def test_a_shell_that_stays_alive_is_not_moved() -> None:
    assert every(rewritten, steps("cat a.py", scaffold="swe-agent")[0]) == {"cat 'a.py'", "cat ./a.py", "sed -n '1,$p' a.py"}


@pytest.mark.parametrize(
    ("command", "made"),
    [
        ("cat src/a.py", {"cat lib/b.py"}),
        ("sed -n '5,9p' src/a.py", {"sed -n '65,69p' src/a.py", "sed -n '5,9p' lib/b.py"}),
        ("grep foo", {"grep -v foo"}),
        ("head -n 5 f", {"tail -n 5 f"}),
        ("python -c 'if a == b: c(True)'", {"python -c 'if a != b: c(True)'"}),
    ],
)
def test_look_alikes_do_something_else(command: str, made: set[str]) -> None:
    assert every(look_alike, steps(command, "cat lib/b.py", "cat src/a.py")[0]) == made


def test_an_editor_is_moved_to_another_file_line_or_condition() -> None:
    view = edit(command="view", path="/testbed/a.py", view_range=[1, 20])
    found = [look_alike(view, random.Random(seed)) for seed in range(20)]
    assert {str(dict(action.call.arguments)) for action in found if action} == {
        str({"command": "view", "path": "/testbed/a.py", "view_range": [61, 80]}),
        str({"command": "view", "path": "/testbed/a_base.py", "view_range": [1, 20]}),
    }


def test_forged_answers_hold_the_experts_text_and_do_not_do_it() -> None:
    expert, _ = steps("cat a.py", "ls")
    tools = get_scaffold("mini-swe-agent").tools
    answers = [parse_answer(text, tools) for text in forged(expert)]
    assert [answer.error for answer in answers] == ["no action", "no action", "several actions", None, None]
    empty, huge = (answer.action.call.arguments["command"] for answer in answers[3:] if answer.action)
    assert empty == ""
    assert len(huge) >= HUGE
    assert "cat a.py\nls\n" in huge
    assert all("cat a.py" in (answer.thought or "") for answer in (answers[1], *answers[3:]))


def test_one_answer_of_each_kind_and_all_from_the_seed() -> None:
    (step,), others = steps("cat src/a.py"), steps("make", "make test", task="elsewhere")
    found = controls(step, [step, *others], random.Random(1))
    assert list(found) == list(KINDS)
    assert [len(found[kind]) for kind in KINDS[:-1]] == [1, 1, 1, 1]
    assert "make" in found["other"][0]
    assert found["expert"] == [
        f"<think>\n{THOUGHT}\n</think>\n<function=bash>\n<parameter=command>cat src/a.py</parameter>\n</function>"
    ]
    assert controls(step, [step, *others], random.Random(1)) == found


def test_no_other_run_no_other_action() -> None:
    (step,) = steps("cat src/a.py")
    assert controls(step, [step], random.Random(1))["other"] == []


def test_on_real_steps_what_is_rewritten_means_the_same(real_data: Path) -> None:
    """By the functional reward, which knows nothing of the rules that rewrote it."""
    runs = sorted((real_data / "trajectories" / "mini_swe_agent_v1").glob("*.json"))[:12]
    found = list(eligible(load([str(run) for run in runs])))
    made = [(step, rewritten(step, random.Random(step.id))) for step in found]
    values = [functional(step.action, action) for step, action in made if action is not None]
    assert len(values) > 250
    assert set(values) == {1.0}
