"""What ships with the project does what it says: tasks that are broken as stated, demonstrations that mend them."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.grading import run_tests
from swe_srl.environments.image import build_image
from swe_srl.environments.record import load_script
from swe_srl.environments.replay import compare, run_action
from swe_srl.environments.task import load_tasks
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory

ROOT = Path(__file__).parents[2]
TASKS = load_tasks([ROOT / "environments"])
DEMONSTRATIONS: dict[str, Trajectory] = {run.task_id: run for run in load([ROOT / "trajectories"])}


def test_every_task_has_its_demonstration() -> None:
    assert TASKS.bad == []
    assert len(TASKS.tasks) == 12
    assert TASKS.tasks.keys() == DEMONSTRATIONS.keys()
    assert len({task.repo for task in TASKS.tasks.values()}) == 4
    assert sorted(path.name for path in (ROOT / "trajectories").glob("*.jsonl")) == sorted(
        f"{name}.jsonl" for name in TASKS.tasks
    )


@pytest.mark.parametrize("name", sorted(TASKS.tasks))
def test_a_demonstration_is_a_run_of_steps_with_thoughts(name: str) -> None:
    run = DEMONSTRATIONS[name]
    steps = list(run.steps())
    assert 6 <= len(steps) <= 14
    assert run.resolved is True
    assert run.exit_status == "submitted"
    assert run.problem == TASKS.tasks[name].problem_statement.strip()
    assert run.extra == {"repo": TASKS.tasks[name].repo}
    assert all(step.turn.thought and step.turn.observation for step in steps)
    assert steps[-1].action.call.name == "submit"
    script = load_script(ROOT / "trajectories" / "scripts" / f"{name}.toml")
    assert [(step.action.call.name, step.action.call.arguments, step.turn.thought) for step in steps] == [
        (step.tool, step.arguments, step.thought.strip()) for step in script.steps
    ]


@pytest.mark.xdist_group("shipped")
@pytest.mark.parametrize("name", sorted(TASKS.tasks))
def test_a_task_is_broken_until_its_demonstration_has_run(client: DockerClient, name: str) -> None:
    task, run = TASKS.tasks[name], DEMONSTRATIONS[name]
    image = build_image(client, task).tag
    with DockerSandbox.start(client, image) as sandbox:
        before = run_tests(sandbox, task)
    assert task.fail_to_pass
    assert task.pass_to_pass
    assert before.failing == list(task.fail_to_pass)
    scaffold = get_scaffold(run.scaffold)
    with DockerSandbox.start(client, image) as sandbox:
        for step in run.steps():
            recorded = step.turn.observation
            assert recorded is not None
            compared = compare(step.k, recorded, run_action(sandbox, scaffold, step.action, run), 0.0)
            assert (compared.replayed, compared.returncode) == (compared.recorded, compared.recorded_returncode), step.id
            assert compared.exact
        after = run_tests(sandbox, task)
    assert after.failing == []
    assert after.resolved
