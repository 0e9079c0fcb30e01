"""A task is solved when every named test passed, by what pytest's own summary says."""

from __future__ import annotations

import pytest
from docker import DockerClient
from tiny import FILES, MakeTask

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.grading import TestOutcome, passed_tests, run_tests
from swe_srl.environments.image import build_image
from swe_srl.errors import UserError

OUTPUT = """\
============================= test session starts ==============================
collected 12 items

t.py ...xXFF.EE s                                                        [100%]
==================================== PASSES ====================================
____________________________________ test_a ____________________________________
----------------------------- Captured stdout call -----------------------------
PASSED t.py::test_printed
=========================== short test summary info ============================
PASSED t.py::test_printed_with_a_summary
=========================== short test summary info ============================
PASSED t.py::test_a
PASSED t.py::test_p[a b]
PASSED t.py::test_p[a - b]
PASSED t.py::test_p[q] - z]
PASSED t.py::TestA::test_m
PASSED t.py::test_teardown
SKIPPED [1] t.py:19: no
XFAIL t.py::test_x[a - b] - because - of [this]
XFAIL t.py::test_y
XPASS t.py::test_xp - reason
ERROR t.py::test_teardown - ValueError: x
ERROR t.py::test_setup
FAILED t.py::test_f[a - b] - AssertionError: why - not
FAILED t.py::test_g
1 failed, 5 passed, 1 skipped, 2 xfailed, 1 xpassed, 2 errors in 1.00s
"""


def test_the_summary() -> None:
    assert passed_tests(OUTPUT) == {
        "t.py::test_a",
        "t.py::test_p[a b]",
        "t.py::test_p[a - b]",
        "t.py::test_p[q] - z]",
        "t.py::TestA::test_m",
        "t.py::test_x[a - b]",
        "t.py::test_y",
    }


@pytest.mark.parametrize("output", ["", "PASSED t.py::test_a\n", "=== short test summary info ===\n", "3 passed in 1s"])
def test_output_without_a_summary_of_passes(output: str) -> None:
    assert passed_tests(output) == frozenset()


@pytest.mark.parametrize(
    ("passed", "fail_to_pass", "pass_to_pass", "resolved", "failing"),
    [
        ("a b c", "a", "b", True, []),
        ("a", "a", "", True, []),
        ("b", "a", "b", False, ["a"]),
        ("a", "a", "b c", False, ["b", "c"]),
        ("a b", "", "b", False, []),
    ],
)
def test_resolved(passed: str, fail_to_pass: str, pass_to_pass: str, resolved: bool, failing: list[str]) -> None:
    outcome = TestOutcome(frozenset(passed.split()), tuple(fail_to_pass.split()), tuple(pass_to_pass.split()), "", False)
    assert (outcome.resolved, outcome.failing) == (resolved, failing)


_RUNNER = """\
echo '=== short test summary info ==='
for file in checks/*; do sh $file && echo "PASSED $file" || echo "FAILED $file - no"; done
"""
_NEW_TEST = """\
--- /dev/null
+++ b/checks/new
@@ -0,0 +1 @@
+grep -q 'ONE = 2' tiny/__init__.py
"""


def test_the_hidden_tests_come_with_the_grading(client: DockerClient, base_image: str, make_task: MakeTask) -> None:
    files = {**FILES, "run_tests.sh": _RUNNER, "checks/old": "true\n"}
    tests = {"fail_to_pass": ["checks/new"], "pass_to_pass": ["checks/old"]}
    task = make_task(files, test_command="sh run_tests.sh", test_patch=_NEW_TEST, **tests)
    image = build_image(client, task).tag
    with DockerSandbox.start(client, image) as sandbox:
        assert sandbox.execute("ls checks", timeout=20).output == "old\n"
        before = run_tests(sandbox, task)
        assert (before.passed, before.failing, before.resolved, before.timed_out) == (
            frozenset({"checks/old"}),
            ["checks/new"],
            False,
            False,
        )
        assert before.output == "=== short test summary info ===\nFAILED checks/new - no\nPASSED checks/old\n"
    with DockerSandbox.start(client, image) as sandbox:
        sandbox.execute("echo 'ONE = 2' > tiny/__init__.py", timeout=20)
        assert run_tests(sandbox, task).resolved
        assert run_tests(sandbox, task).resolved, "its tests may be there already"


_CHANGED_TEST = """\
--- a/checks/old
+++ b/checks/old
@@ -1 +1 @@
-true
+grep -q 'ONE = 2' tiny/__init__.py
"""


@pytest.mark.parametrize(
    "cheat",
    [
        "echo true > checks/new; echo true > checks/old",
        "mkdir checks/new; rm checks/old",
        "echo true > checks/new; echo true > checks/old; git add -A; git commit -q -m mine",
    ],
)
def test_what_an_agent_did_to_the_hidden_tests_is_undone(
    client: DockerClient, base_image: str, make_task: MakeTask, cheat: str
) -> None:
    files = {**FILES, "run_tests.sh": _RUNNER, "checks/old": "true\n"}
    tests = {"fail_to_pass": ["checks/new", "checks/old"]}
    task = make_task(files, test_command="sh run_tests.sh", test_patch=_NEW_TEST + _CHANGED_TEST, **tests)
    with DockerSandbox.start(client, build_image(client, task).tag) as sandbox:
        sandbox.execute(f"git config user.name a; git config user.email a@b; {cheat}", timeout=20)
        assert run_tests(sandbox, task).failing == ["checks/new", "checks/old"]
        sandbox.execute("echo 'ONE = 2' > tiny/__init__.py", timeout=20)
        assert run_tests(sandbox, task).resolved


@pytest.mark.parametrize(
    ("patch", "reason"),
    [("@@ -1 +1 @@\n-a\n+b\n", "not a unified diff"), (_CHANGED_TEST.replace("true", "false"), "error: patch failed: checks/old:1")],
)
def test_a_test_patch_that_does_not_apply(
    client: DockerClient, base_image: str, make_task: MakeTask, patch: str, reason: str
) -> None:
    task = make_task({**FILES, "checks/old": "true\n"}, test_command="true", test_patch=patch, fail_to_pass=["checks/old"])
    image = build_image(client, task).tag
    with (
        DockerSandbox.start(client, image) as sandbox,
        pytest.raises(UserError, match=f"task {task.id}: its test patch does not apply: {reason}"),
    ):
        run_tests(sandbox, task)


def test_tests_that_hang_or_are_missing(client: DockerClient, base_image: str, make_task: MakeTask) -> None:
    task = make_task(test_command="echo PASSED a; sleep 60", fail_to_pass=["a"])
    with DockerSandbox.start(client, build_image(client, task).tag) as sandbox:
        outcome = run_tests(sandbox, task, timeout=0.5)
        assert (outcome.timed_out, outcome.resolved) == (True, False)
        with pytest.raises(UserError, match=f"task {task.id}: has no test_command, so it cannot be graded"):
            run_tests(sandbox, task.model_copy(update={"test_command": ""}))
