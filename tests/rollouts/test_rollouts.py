"""Rollouts of a shipped task in real containers: outcomes, starts, faults, and what the folder keeps."""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from saying import Says, says

from swe_srl.environments.docker import RUN_ID, RUN_LABEL, DockerSandbox
from swe_srl.environments.image import build_image
from swe_srl.environments.replaying import ReplayWork, replay_all
from swe_srl.environments.snapshots import SnapshotMap
from swe_srl.environments.task import load_tasks
from swe_srl.errors import UserError
from swe_srl.policy.prompts import PromptOptions, render_messages
from swe_srl.rollouts.agent import AgentConfig, Policy, PolicyFault, Reply
from swe_srl.rollouts.folder import ROLLOUTS, UNFINISHED, read_rollouts
from swe_srl.rollouts.policies import ScriptedPolicy
from swe_srl.rollouts.record import read_record, summary
from swe_srl.rollouts.run import Job, RolloutOptions, RolloutReport, act_alone, act_led, make_rollout, run_rollouts
from swe_srl.rollouts.starts import Start, StartRule, parse_start, starts
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step

pytestmark = pytest.mark.xdist_group("shipped")
ROOT = Path(__file__).parents[2]
NAME = "ttlbox-expiry-edge"
TASK = load_tasks([ROOT / "environments" / NAME]).tasks[NAME]
TASKS = {NAME: TASK}
[EXPERT] = load([ROOT / "trajectories" / f"{NAME}.jsonl"])
STEPS = list(EXPERT.steps())
QUICK = AgentConfig(max_steps=30, max_seconds=120, max_format_errors=1)


def at(rule: str, snapshots: Path | None = None) -> list[Start]:
    found, left_out = starts(parse_start(rule), TASKS, [EXPERT], None, snapshots)
    assert left_out == []
    return found


def run(policy: Policy, out: Path, begin: Sequence[Start] | None = None, **options: Any) -> RolloutReport:
    act = options.pop("act", act_alone)
    chosen = RolloutOptions(**{"agent": QUICK, "workers": 2, **options})
    begin = at("issue") if begin is None else begin
    return run_rollouts(begin, TASKS, policy, out, {"model": policy.name}, chosen, print, act)


def test_the_expert_alone_resolves_the_task(client: DockerClient, tmp_path: Path) -> None:
    report = run(ScriptedPolicy([EXPERT]), tmp_path)
    assert report.failed == []
    [made] = report.rollouts
    assert (made.id, made.task_id, made.exit_status, made.resolved) == (f"{NAME}-rollout-0", NAME, "submitted", True)
    assert [step.action for step in made.steps()] == [dataclasses.replace(step.action, calls=_unnamed(step)) for step in STEPS]
    assert made.submission is not None
    assert made.submission.startswith("diff --git a/ttlbox/")
    record = read_record(made)
    assert record.tests is not None
    assert (record.tests.fail_to_pass, record.tests.fail_to_pass_of) == (4, 4)
    assert (record.tests.pass_to_pass, record.tests.pass_to_pass_of) == (15, 15)
    # `swe-srl import` reads the file as the trajectory that was made.
    assert load([tmp_path / ROLLOUTS]) == [made]


def _unnamed(step: Step) -> Any:
    return tuple(dataclasses.replace(call, id="") for call in step.action.calls)


def test_a_policy_that_says_nothing_or_submits_at_once_resolves_nothing(client: DockerClient, tmp_path: Path) -> None:
    submit = "<think>\nDone.\n</think>\n<function=submit>\n</function>"
    for answer, status in (("", "format_errors"), (submit, "submitted")):
        [made] = run(Says(answer), tmp_path / status).rollouts
        assert (made.exit_status, made.resolved) == (status, False)
        tests = read_record(made).tests
        assert tests is not None
        assert tests.failing == TASK.fail_to_pass
        assert made.submission == ""


def test_destroying_the_sandbox_is_not_solving_and_not_a_fault(client: DockerClient, tmp_path: Path) -> None:
    for name, command in (("now", "kill -9 -1"), ("later", "(sleep 1; kill -9 -1) </dev/null >/dev/null 2>&1 &")):
        slow = "<think>\nDone.\n</think>\n<function=submit>\n</function>"
        late = Says(says(command), says("sleep 3"), slow)
        report = run(late, tmp_path / name)
        [made] = report.rollouts
        assert (made.exit_status, made.resolved, report.failed) == ("destroyed", False, [])
        record = read_record(made)
        assert (record.sandboxes, record.error) == (1, None), "begun once: it would end so again"
        assert record.tests is not None
        assert record.tests.reason == "the policy's commands ended its sandbox"


def test_wrecking_the_tests_is_not_solving_and_is_flagged(client: DockerClient, tmp_path: Path) -> None:
    vandal = says("rm -rf .git tests ttlbox; echo gone > tests")
    cheat = says("printf 'def test_get_and_default(): pass\\n' > tests/test_box.py; git add -A; git commit -qm x")
    [wrecked] = run(Says(vandal, ""), tmp_path / "vandal").rollouts
    assert (wrecked.resolved, wrecked.submission) == (False, None)
    [cheated] = run(Says(cheat, ""), tmp_path / "cheat").rollouts
    assert cheated.resolved is False
    assert read_record(cheated).flags == ("edits_tests: tests/test_box.py",)


@pytest.mark.parametrize(("rule", "k"), [("step:0", 0), ("step:4", 4), ("last:3", len(STEPS) - 3), ("last:99", 0)])
def test_a_start_shows_what_training_shows_before_that_step(rule: str, k: int) -> None:
    [start] = at(rule)
    turns = start.trajectory.turns
    assert (start.expert, start.trajectory.id) == ((EXPERT.id, k), f"{EXPERT.id}@{k}")
    shown = Step(start.trajectory, 0, len(turns))
    options = PromptOptions()
    assert render_messages(shown, [], options) == render_messages(STEPS[k], [], options)
    assert list(start.trajectory.steps()) == [], "an expert's turns are no targets"


@pytest.mark.parametrize("forked", [False, True])
def test_from_an_experts_step_the_policy_has_the_experts_state(client: DockerClient, tmp_path: Path, forked: bool) -> None:
    k = next(step.k for step in STEPS if step.action.call.arguments["command"] == "insert") + 1
    folder = tmp_path / "replay"
    if forked:
        images = {NAME: build_image(client, TASK).tag}
        replay_all(ReplayWork(images, {}, client=client, snapshots=SnapshotMap(client, folder, "changed")), [EXPERT])
    begin = at(f"step:{k}", folder if forked else None)
    policy = Says(says("git diff --stat"), "")
    [made] = run(policy, tmp_path / "one", begin).rollouts
    observation = made.turns[-2].observation
    assert observation is not None
    assert "1 file changed" in observation.text, "the expert's edit is there"
    assert summary(made)["answers"] == 2
    assert read_record(made).start == {
        "from": "expert",
        "trajectory": EXPERT.id,
        "k": k,
        "exact": None if forked else k,
    }
    if forked:
        [solved] = run(ScriptedPolicy([EXPERT]), tmp_path / "two", begin).rollouts
        assert (solved.resolved, summary(solved)["answers"]) == (True, len(STEPS) - k)
        SnapshotMap(client, folder, "all")  # a new map removes the images of the former


@pytest.mark.parametrize("least", [0.5, 1.0])
def test_on_the_way_to_an_experts_step_its_own_turns_stand_where_they_match(
    client: DockerClient, tmp_path: Path, least: float
) -> None:
    k = len(STEPS) - 1
    begin, _ = starts(StartRule("step", k), TASKS, [EXPERT], None, None, led=True)
    assert len(begin[0].trajectory.turns) == 1, "the policy is asked from the issue on"
    policy = NearlyExpert([EXPERT])
    [made] = run(policy, tmp_path, begin, act=functools.partial(act_led, least=least)).rollouts
    assert (made.id, made.resolved) == (f"{EXPERT.id}@{k}-rollout-0", True)
    assert read_record(made).start["k"] == k
    agent = [turn for turn in made.turns if turn.role == "agent"]
    similar = [least == 0.5 and step.action.call.name == "bash" for step in STEPS[:k]]
    assert [not turn.context_only for turn in agent] == [*similar, True]


class NearlyExpert(ScriptedPolicy):
    """The expert, but for a comment at the end of every shell command, and no such command in the editor."""

    def reply(self, step: Step, tools: Sequence[Mapping[str, Any]]) -> Reply:
        expert = super().reply(step, tools)
        return dataclasses.replace(expert, text=expert.text.replace("</parameter>", " #</parameter>", 1))


def test_starts_that_are_not_there() -> None:
    found, left_out = starts(StartRule("step", 99), TASKS, [EXPERT], None, None)
    assert found == []
    assert left_out == [
        {"id": EXPERT.id, "reason": f"has {len(STEPS)} steps, so there is none to begin at with step:99"},
    ]
    _, left_out = starts(StartRule("step", 1), TASKS, [], None, None)
    assert left_out == [{"id": NAME, "reason": "no expert trajectory of this task, which --start step:1 needs"}]
    with pytest.raises(UserError, match="was recorded with swe-agent, and what begins at its steps goes on with it"):
        starts(StartRule("step", 1), TASKS, [EXPERT], "mini-swe-agent", None)
    for text in ("step", "last:0", "step:-1", "issue:1"):
        with pytest.raises(UserError, match=f"--start {text}: expected issue, step:K"):
            parse_start(text)


class Faulty:
    """Fails for some rollouts, by the order in which they ask first; submits for the others."""

    name = "faulty"

    def __init__(self, *failing: int) -> None:
        self.failing, self.seen, self.lock = failing, [], threading.Lock()  # type: ignore[var-annotated]

    def reply(self, step: Step, tools: Sequence[Mapping[str, Any]]) -> Reply:
        with self.lock:
            self.seen.append(step.trajectory.id)
            number = len(self.seen) - 1
        if number in self.failing:
            raise PolicyFault("status 503: busy")
        return Says("").reply(step, tools)

    def close(self) -> None:
        pass


def test_what_the_endpoint_ended_is_unfinished_and_made_again(client: DockerClient, tmp_path: Path) -> None:
    first = run(Faulty(1), tmp_path, attempts=3, workers=1)
    assert [made.id for made in first.rollouts] == [f"{NAME}-rollout-{i}" for i in (0, 2)]
    assert first.failed == [{"id": f"{NAME}-rollout-1", "reason": "status 503: busy"}]
    finished, unfinished = read_rollouts(tmp_path)
    assert [made.id for made in finished] == [f"{NAME}-rollout-{i}" for i in (0, 2)]
    assert [(made.id, made.exit_status, made.resolved) for made in unfinished] == [
        (f"{NAME}-rollout-1", "policy_fault", None)
    ], "masked: it has no outcome"
    policy = Faulty()
    second = run(policy, tmp_path, attempts=3, workers=1)
    assert policy.seen == [f"{EXPERT.task_id}"], "only what is missing is made"
    assert ([made.id for made in second.rollouts], second.failed) == ([f"{NAME}-rollout-{i}" for i in range(3)], [])
    assert (tmp_path / UNFINISHED).read_text() == ""
    assert len(load([tmp_path / ROLLOUTS])) == 3


def test_a_killed_container_is_begun_again_and_the_others_go_on(client: DockerClient, tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(count: int) -> None:
        if not killed:
            killed.append(count)
            for container in client.containers.list(filters={"label": f"{RUN_LABEL}={RUN_ID}"}):
                container.kill("SIGKILL")

    report = run(Says(says("true"), "", before=kill), tmp_path, attempts=2, workers=1)
    assert report.failed == []
    assert [read_record(made).sandboxes for made in report.rollouts] == [2, 1]
    killed.clear()
    [start], acted = at("issue"), []
    job = Job("again", TASK, start, 0, build_image(client, TASK).tag, "")
    options, never = RolloutOptions(QUICK), threading.Event()
    made, error = make_rollout(
        client, job, Says(says("true"), "", before=kill), options, never, on_acted=lambda: acted.append(len(killed))
    )
    assert (read_record(made).sandboxes, error) == (2, None)
    assert acted == [1], "one whose sandbox is lost may act again"
    report = run(Says(says("true"), before=lambda _: (killed.clear(), kill(0))[1]), tmp_path / "always", retries=1)
    [failure] = report.failed
    assert "no longer answers" in failure["reason"]
    assert read_rollouts(tmp_path / "always")[1][0].exit_status == "sandbox_fault"


def test_a_folder_is_of_one_set_of_settings(client: DockerClient, tmp_path: Path) -> None:
    run(Says(""), tmp_path)
    again = Says("")
    assert (len(run(again, tmp_path).rollouts), again.shown) == (1, [])
    with pytest.raises(UserError, match=r"holds rollouts made with other settings \(agent was"):
        run(Says(""), tmp_path, agent=QUICK.model_copy(update={"max_steps": 3}))
    other = dataclasses.replace(at("issue")[0].trajectory, turns=())
    with pytest.raises(UserError, match=f"holds {NAME}-rollout-0 made when its task, image or start was another"):
        run(Says(""), tmp_path, [Start(other)])
    assert len(run(Says(""), tmp_path, agent=QUICK.model_copy(update={"max_steps": 3}), overwrite=True).rollouts) == 1


def test_no_container_is_left(client: DockerClient, tmp_path: Path) -> None:
    run(Says(""), tmp_path, attempts=2)

    class Broken(Says):
        def reply(self, step: Step, tools: object) -> Reply:
            raise RuntimeError("a fault of the sampler ends the run")

    with pytest.raises(RuntimeError, match="ends the run"):
        run(Broken(""), tmp_path / "broken", attempts=2)
    assert client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={RUN_ID}"}, ignore_removed=True) == []


def test_the_policy_is_told_nothing_of_the_hidden_tests_and_finds_nothing(client: DockerClient) -> None:
    hidden = [line[1:] for line in str(TASK.test_patch).splitlines() if line.startswith("+def test_")]
    assert len(hidden) == len(TASK.fail_to_pass)
    [start] = at("issue")
    prompt = json.dumps(render_messages(Step(start.trajectory, 0, 1), [], PromptOptions()))
    names = [line.removeprefix("def ").partition("(")[0] for line in hidden]
    assert not [name for name in (*names, *TASK.fail_to_pass, *TASK.pass_to_pass) if name in prompt]
    with DockerSandbox.start(client, build_image(client, TASK).tag) as sandbox:
        found = sandbox.execute(
            f"grep -rlsE '{'|'.join(names)}' /testbed /opt /var/lib /tmp /root /usr/local /home", timeout=60
        )
        assert found.output == ""
        history = sandbox.execute("git log --all --oneline; git remote; git stash list; git fsck --lost-found", timeout=60)
        assert [line.split(" ", 1)[1] for line in history.output.splitlines()] == ["start", "base"]
