"""OpenHands' interface: commands, the lines below a command's output, and its editor against the recorded edits."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import CommandResult, Scaffold, ToolCall
from swe_srl.scaffolds.openhands import OpenHands
from swe_srl.scaffolds.tools import openhands_editor as editor

OPENHANDS = OpenHands()
STATE = "\x1e/testbed\x1e/opt/python\x1e"
CHANGES = "Review the changes and make sure they are as expected"


def bash(command: str, **more: Any) -> ToolCall:
    return ToolCall("execute_bash", {"command": command, **more})


def test_is_a_scaffold() -> None:
    scaffold: Scaffold = get_scaffold("openhands")
    assert (scaffold.name, scaffold.persistent_shell, scaffold.timeout_seconds) == ("openhands", True, 120.0)
    assert [tool["function"]["name"] for tool in scaffold.tools] == ["execute_bash", "think", "finish", "str_replace_editor"]
    json.dumps(scaffold.tools)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("execute_ipython_cell", {"code": "1"}), "openhands has no tool 'execute_ipython_cell'"),
        (bash("y", is_input="true"), "execute_bash: input for a running command (is_input) cannot be given"),
        (ToolCall("think", {}), "think: argument 'thought' is missing"),
    ],
)
def test_a_call_that_is_not_there_is_an_error(call: ToolCall, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OPENHANDS.command(call)


def test_the_lines_below_a_commands_output() -> None:
    seen = OPENHANDS.observe(bash("x"), CommandResult(f"a\n b\n\n{STATE}", 2))
    assert seen.text == (
        "a\n b\n[The command completed with exit code 2.]\n[Current working directory: /testbed]\n"
        "[Python interpreter: /opt/python]\n[Command finished with exit code 2]"
    )
    assert (seen.output, seen.returncode) == ("a\n b", 2)
    ended = OPENHANDS.observe(bash("exit 3"), CommandResult("bye\n", 3))
    assert ended.text == "bye\n[The command completed with exit code 3.]\n[Command finished with exit code 3]"
    slow = OPENHANDS.observe(bash("x"), CommandResult("part\n", None, 120.4))
    assert slow.text.startswith("part\n[The command timed out after 120 seconds. You may wait longer to see")
    assert OPENHANDS.parse_observation(slow.text).output == "part"


@given(st.text(max_size=60), st.booleans(), st.sampled_from([None, 0, 127]))
def test_observe_and_parse_agree(printed: str, known: bool, code: int | None) -> None:
    seen = OPENHANDS.observe(bash("x"), CommandResult(printed + (STATE if known else ""), code))
    parsed = OPENHANDS.parse_observation(seen.text)
    assert (parsed.text, parsed.output, parsed.returncode) == (seen.text, seen.output, seen.returncode)


class Container:
    """A folder that stands for a container: tools installed, `root` cut off the paths in the answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.testbed = root / "testbed"
        self.testbed.mkdir()
        self.scaffold = OpenHands(workdir=str(self.testbed))
        for file in self.scaffold.tool_files:
            installed = root / file.path.lstrip("/")
            installed.parent.mkdir(parents=True, exist_ok=True)
            installed.write_bytes(file.content.replace(b"/usr/local/lib/swe-srl", f"{root}/usr/local/lib/swe-srl".encode()))
            installed.chmod(0o755)

    def __call__(self, name: str, **arguments: Any) -> str:
        if "path" in arguments:
            arguments["path"] = str(self.root) + arguments["path"]
        call = ToolCall(name, arguments)
        done = subprocess.run(
            ["bash"],
            input=self.scaffold.command(call).replace("/usr/local/", f"{self.root}/usr/local/").encode(),
            cwd=self.testbed,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root), "SWE_SRL_STATE": str(self.root / "state")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return self.scaffold.observe(call, CommandResult(done.stdout.decode(), done.returncode)).text.replace(
            str(self.root), ""
        )


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_calls(container: Container) -> None:
    assert re.fullmatch(
        r"a\n\[The command completed with exit code 1\.\]\n\[Current working directory: /testbed\]\n"
        r"(\[Python interpreter: \S+\]\n)?\[Command finished with exit code 1\]",
        container("execute_bash", command="echo a; false"),
    )
    assert container("think", thought="Hm.") == "Your thought has been logged."
    path = "/testbed/a.txt"
    assert container("str_replace_editor", command="create", path=path, file_text="one\n\ttwo\n") == (
        "File created successfully at: /testbed/a.txt"
    )
    assert container("str_replace_editor", command="view", path=path) == (
        "Here's the result of running `cat -n` on /testbed/a.txt:\n     1\tone\n     2\t\ttwo\n     3\t\n"
    )
    assert container("str_replace_editor", command="view", path=path, view_range=[2, -1]) == (
        "Here's the result of running `cat -n` on /testbed/a.txt:\n     2\t\ttwo\n"
    )
    assert container("str_replace_editor", command="str_replace", path=path, old_str="one", new_str="1") == (
        "The file /testbed/a.txt has been edited. Here's the result of running `cat -n` on a snippet of /testbed/a.txt:\n"
        f"     1\t1\n     2\t\ttwo\n     3\t\n{CHANGES}. Edit the file again if necessary."
    )
    assert container("str_replace_editor", command="insert", path=path, insert_line=1, new_str="1.5") == (
        "The file /testbed/a.txt has been edited. Here's the result of running `cat -n` on a snippet of the edited file:\n"
        f"     1\t1\n     2\t1.5\n     3\t\ttwo\n     4\t\n{CHANGES} (correct indentation, no duplicate lines, etc). "
        "Edit the file again if necessary."
    )
    assert container("str_replace_editor", command="undo_edit", path=path).startswith(
        "Last edit to /testbed/a.txt undone successfully. Here's the result of running `cat -n` on /testbed/a.txt:\n     1\t1\n"
    )
    container("execute_bash", command="mkdir -p d/e/f; touch d/.h .g")
    assert container("str_replace_editor", command="view", path="/testbed") == (
        "Here's the files and directories up to 2 levels deep in /testbed, excluding hidden items:\n"
        "/testbed/\n/testbed/a.txt\n/testbed/d/\n/testbed/d/e/\n\n"
        "1 hidden files/directories in this directory are excluded. You can use 'ls -la /testbed' to see them."
    )


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (
            {"command": "view", "path": "a.txt"},
            "Invalid `path` parameter: a.txt. The path should be an absolute path, starting with `/`.",
        ),
        ({"command": "str_replace", "path": "F"}, "Parameter `old_str` is required for command: str_replace."),
        (
            {"command": "str_replace", "path": "F", "old_str": "a", "new_str": "a"},
            "Invalid `new_str` parameter: a. No replacement was performed. `new_str` and `old_str` must be different.",
        ),
        (
            {"command": "str_replace", "path": "F", "old_str": "x"},
            "No replacement was performed, old_str `x` did not appear verbatim in F.",
        ),
        (
            {"command": "str_replace", "path": "F", "old_str": "a"},
            "No replacement was performed. Multiple occurrences of old_str `a` in lines [1, 3]. Please ensure it is unique.",
        ),
        (
            {"command": "view", "path": "F", "view_range": [1, 4]},
            "Invalid `view_range` parameter: [1, 4]. "
            "Its second element `4` should be smaller than the number of lines in the file: `3`.",
        ),
        (
            {"command": "insert", "path": "F", "insert_line": 4, "new_str": "x"},
            "Invalid `insert_line` parameter: 4. It should be within the range of allowed values: [0, 3]",
        ),
        ({"command": "undo_edit", "path": "F"}, "No edit history found for F."),
    ],
)
def test_refusals_change_nothing(
    arguments: dict[str, Any], refusal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(editor, "STATE", tmp_path / "state")
    file = tmp_path / "f"
    file.write_text("a a\nb\na\n")
    with pytest.raises(editor.RefusedError) as refused:
        editor.run({key: str(file) if value == "F" else value for key, value in arguments.items()})
    assert str(refused.value).replace(str(file), "F") == refusal
    assert file.read_text() == "a a\nb\na\n"


def recorded_edits(real_data: Path) -> Iterator[tuple[dict[str, Any], str]]:
    for line in (real_data / "trajectories/openhands/multi_swe_bench__output.jsonl").read_text().splitlines():
        events = json.loads(line)["history"]
        actions = {event["id"]: event["args"] for event in events if event.get("action") == "edit"}
        for event in events:
            if event.get("observation") == "edit" and event["content"].startswith("The file"):
                yield actions[event["cause"]], event["content"]


@pytest.mark.real_data
def test_recorded_edits(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor, "STATE", tmp_path / "state")
    edits = list(recorded_edits(real_data))
    assert Counter(action["command"] for action, _ in edits) == {"str_replace": 2, "insert": 4}
    for action, content in edits:
        shown = {int(n): line for n, line in re.findall(r"^ *(\d+)\t(.*)$", content, re.MULTILINE)}
        edited = "".join(f"{shown.get(n, '')}\n" for n in range(1, max(shown) + 20))
        if action["command"] == "insert":
            lines = edited.split("\n")
            del lines[action["insert_line"] : action["insert_line"] + action["new_str"].count("\n") + 1]
            before = "\n".join(lines)
        elif action["new_str"]:
            before = edited.replace(action["new_str"], action["old_str"])
        else:  # the fourth line shown is the one from which the text was taken
            lines = edited.split("\n")
            lines[min(shown) + 2] += action["old_str"]
            before = "\n".join(lines)
        file = tmp_path / "file"
        file.write_text(before)
        answer = editor.run({**action, "path": str(file)})
        assert answer.replace(str(file), action["path"]) == content
