"""Flags: what a rollout should not have needed."""

from __future__ import annotations

import pytest

from swe_srl.environments.task import Task, task_from_row
from swe_srl.rollouts.guards import flags
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.model import Trajectory, Turn

HIDDEN = "--- /dev/null\n+++ b/checks/hidden.sh\n@@ -0,0 +1 @@\n+true\n"


@pytest.fixture
def task(tmp_path: object) -> Task:
    return task_from_row({"id": "t", "source": {"sdist": "a==1"}, "test_patch": HIDDEN})


def edit(path: str, line: str = "b") -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-a\n+{line}\n"


def new(path: str) -> str:
    return f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+b\n"


def added_to(path: str) -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1,2 @@\n a\n+b\n"


def renamed(path: str, to: str) -> str:
    header = f"diff --git a/{path} b/{to}\nsimilarity index 60%\nrename from {path}\nrename to {to}\n"
    return f"{header}--- a/{path}\n+++ b/{to}\n@@ -1 +1,2 @@\n a\n+b\n"


def removed(path: str) -> str:
    return f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n--- a/{path}\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"


def acting(*commands: str, context_only: bool = False) -> Trajectory:
    turns = [
        Turn("agent", "", "", Action((ToolCall("bash", {"command": command}),)), context_only=context_only)
        for command in commands
    ]
    return Trajectory("t", "t", "swe-agent", "atif", tuple(turns))


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (edit("src/parser.py") + new("reproduce.py"), ()),
        (edit("tests/test_parser.py"), ("edits_tests: tests/test_parser.py",)),
        (added_to("tests/test_parser.py"), ("adds_to_tests: tests/test_parser.py",)),
        (added_to("src/parser.py"), ()),
        (added_to("checks/hidden.sh"), ("edits_tests: checks/hidden.sh",)),
        (renamed("tests/test_a.py", "src/a.py"), ("edits_tests: src/a.py",)),
        (removed("lib/parser_test.py"), ("edits_tests: lib/parser_test.py",)),
        (new("tests/test_mine.py"), ()),
        (new("checks/hidden.sh"), ("edits_tests: checks/hidden.sh",)),
        (new("conftest.py") + new("sitecustomize.py"), ("edits_tests: conftest.py", "edits_tests: sitecustomize.py")),
        (edit("pyproject.toml", 'addopts = "--pytest"'), ("edits_tests: pyproject.toml",)),
        (edit("pyproject.toml", 'version = "2"'), ()),
        (edit("src/latest.py") + edit("src/contest.py"), ()),
        ("", ()),
        (None, ()),
    ],
)
def test_edited_tests(task: Task, patch: str | None, expected: tuple[str, ...]) -> None:
    assert flags(acting(), patch, task) == expected


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("git log --oneline --all", "reaches_history"),
        ("cd src && git -C /testbed reflog", "reaches_history"),
        ("git fsck --lost-found", "reaches_history"),
        ("git branch -a", "reaches_history"),
        ("git log -3; git diff HEAD", None),
        ("git clone https://example.org/x", "reaches_network"),
        ("curl -s https://example.org", "reaches_network"),
        ("pip download ttlbox==2.0", "reaches_network"),
        ("pip list; ls -a", None),
        ("cat /var/lib/swe-srl/test.patch", "reaches_harness"),
    ],
)
def test_reaching_for_the_answer(task: Task, command: str, kind: str | None) -> None:
    assert [flag.split(":")[0] for flag in flags(acting("ls", command), "", task)] == ([kind] if kind else [])


def test_a_flag_is_raised_once_and_not_for_what_the_expert_did(task: Task) -> None:
    assert flags(acting("git reflog", "git reflog"), "", task) == ("reaches_history: git reflog",)
    assert flags(acting("git reflog", context_only=True), "", task) == ()


def test_a_patch_that_cannot_be_read_is_said(task: Task) -> None:
    [flag] = flags(acting(), "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n-a\n", task)
    assert flag.startswith("unreadable_patch: ")
