from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.task import Task, task_from_row
from swe_srl.rewards import outcome
from swe_srl.rewards.outcome import Outcome, outcome_of

F2P, P2P = ["t::new", "t::other"], ["t::old"]
ALL = frozenset([*F2P, *P2P])


@pytest.mark.parametrize(
    ("runs", "value", "flaky", "failed"),
    [
        ([ALL], 1.0, (), ()),
        ([ALL | {"t::more"}], 1.0, (), ()),
        ([ALL - {"t::new"}], 0.0, (), ("t::new",)),
        ([ALL - {"t::old"}], 0.0, (), ("t::old",)),
        ([frozenset()], 0.0, (), ("t::new", "t::other", "t::old")),
        # flaky ones are left out, of either kind
        ([ALL - {"t::old"}, ALL], 1.0, ("t::old",), ()),
        ([ALL - {"t::new"}, ALL], 1.0, ("t::new",), ()),
        ([frozenset({"t::old", "t::new"}), frozenset({"t::old"})], 0.0, ("t::new",), ("t::other",)),
        # time-outs too, unless another run came to its end
        ([None, ALL], 1.0, (), ()),
        ([None], None, (), ()),
        # nothing is left to judge by
        ([frozenset({"t::old"}), ALL], None, ("t::new", "t::other"), ()),
    ],
)
def test_what_test_runs_say(
    runs: list[frozenset[str] | None], value: float | None, flaky: tuple[str, ...], failed: tuple[str, ...]
) -> None:
    found = outcome(runs, F2P, P2P)
    assert (found.value, found.flaky, found.failed) == (value, flaky, failed)
    assert (found.reason is None) == (value is not None)


@pytest.mark.parametrize(
    ("passed", "value"), [(ALL, 1.0), (ALL - {"t::new"}, 0.5), (ALL - {"t::old"}, 0.0), (frozenset({"t::old"}), 0.0)]
)
def test_a_share_of_the_fail_to_pass_tests(passed: frozenset[str], value: float) -> None:
    assert outcome([passed], F2P, P2P, partial=True).value == value


def test_a_task_without_fail_to_pass_tests_judges_nothing() -> None:
    assert outcome([ALL], [], P2P) == Outcome(None, reason="the task names no fail-to-pass test")


RUNNER = """\
import pathlib, sys
runs = pathlib.Path('/var/tmp/runs')
count = len(runs.read_text()) if runs.exists() else 0
print('=== short test summary info ===')
print('PASSED t::new' if {passes} else 'FAILED t::new - assert')
print('PASSED t::old')
"""


def task_with(tmp_path: Path, runner: str, test_command: str = "python3 runner.py") -> Task:
    (tmp_path / "runner.py").write_text(runner)
    row = {"id": "outcome", "source": {"path": str(tmp_path)}, "fail_to_pass": ["t::new"], "pass_to_pass": ["t::old"]}
    return task_from_row({**row, "test_command": test_command}, tmp_path)


@pytest.mark.parametrize(
    ("passes", "value", "flaky", "forks"),
    [("True", 1.0, (), 1), ("False", 0.0, (), 3), ("count % 2", None, ("t::new",), 2)],
)
def test_the_rerun_rule(
    client: DockerClient, base_image: str, tmp_path: Path, passes: str, value: float | None, flaky: tuple[str, ...], forks: int
) -> None:
    task, started = task_with(tmp_path, RUNNER.format(passes=passes)), []

    def fork() -> DockerSandbox:
        sandbox = DockerSandbox.start(client, base_image)
        sandbox.write_file("/runner.py", (tmp_path / "runner.py").read_bytes())
        sandbox.write_file("/var/tmp/runs", b"x" * len(started))
        started.append(sandbox)
        return sandbox

    found = outcome_of(fork, task, reruns=2)
    assert (found.value, found.flaky, len(started)) == (value, flaky, forks)


def test_tests_that_do_not_end_are_no_failure(client: DockerClient, base_image: str, tmp_path: Path) -> None:
    task = task_with(tmp_path, "", "sleep 30")
    found = outcome_of(lambda: DockerSandbox.start(client, base_image), task, reruns=0, timeout_seconds=1)
    assert found == Outcome(None, reason="the tests did not come to their end in time")
