"""SWE-agent's windowed interface: commands, the lines below each observation, and the recorded runs call by call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windowed_container import Container

from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import CommandResult, Scaffold, ToolCall
from swe_srl.scaffolds.swe_agent_windowed import WAYS, SweAgentWindowed
from swe_srl.trajectories.reader import Origin
from swe_srl.trajectories.readers.swe_agent import SweAgentReader

LINES, REPLACE, ZERO = SweAgentWindowed("lines"), SweAgentWindowed("replace"), SweAgentWindowed("0")
STATE = "\x1e/testbed/a.py\x1e/testbed\x1e"
FOOTER = "\n(Open file: /testbed/a.py)\n(Current directory: /testbed)\nbash-$"


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command})


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("swe-agent-windowed", ["edit"]),
        ("swe-agent-windowed-0", ["edit"]),
        ("swe-agent-windowed-replace", ["edit", "insert"]),
        ("swe-agent-windowed-replace-2024", ["edit", "insert"]),
    ],
)
def test_is_a_scaffold(name: str, tools: list[str]) -> None:
    scaffold: Scaffold = get_scaffold(name)
    assert (scaffold.name, scaffold.persistent_shell, scaffold.timeout_seconds) == (name, True, 30.0)
    assert [tool["function"]["name"] for tool in scaffold.tools] == [
        "bash", "open", "goto", "scroll_up", "scroll_down", "create", "find_file", "search_dir", "search_file", *tools,
        "submit",
    ]  # fmt: skip
    assert {key: scaffold.environment[key] for key in ("WINDOW", "OVERLAP", "PAGER")} == {
        "WINDOW": "100",
        "OVERLAP": "2",
        "PAGER": "cat",
    }
    json.dumps(scaffold.tools)


@pytest.mark.parametrize(
    ("scaffold", "call", "script"),
    [
        (LINES, bash("echo 'a'\n"), "eval 'echo '\"'\"'a'\"'\"'\n'"),
        (LINES, ToolCall("submit", {}), "printf '\\n'; /usr/local/bin/submit /testbed"),
        (
            LINES,
            ToolCall("edit", {"replacement_text": "é\nEND_OF_CALL", "start_line": 1, "end_line": "2"}),
            '_swe_srl_tool windowed call <<\'END_OF_CALL\'\n["edit", "1:2", "\\u00e9\\nEND_OF_CALL"]\nEND_OF_CALL',
        ),
        (
            REPLACE,
            ToolCall("edit", {"replace-all": True, "replace": "b", "search": "a"}),
            '_swe_srl_tool windowed call <<\'END_OF_CALL\'\n["edit", "a", "b", "True"]\nEND_OF_CALL',
        ),
        (
            ZERO,
            ToolCall("search_dir", {"search_term": "x", "dir": None}),
            '_swe_srl_tool search call <<\'END_OF_CALL\'\n["search_dir", "x"]\nEND_OF_CALL',
        ),
    ],
)
def test_commands(scaffold: SweAgentWindowed, call: ToolCall, script: str) -> None:
    way = {"swe-agent-windowed": "lines", "swe-agent-windowed-replace": "replace", "swe-agent-windowed-0": "0"}[scaffold.name]
    assert scaffold.command(call) == f". /usr/local/lib/swe-srl/windowed.sh {way}; {script}\n_swe_srl_state"


@pytest.mark.parametrize(
    ("scaffold", "call", "message"),
    [
        (LINES, ToolCall("insert", {"text": "x"}), "swe-agent-windowed has no tool 'insert'"),
        (LINES, ToolCall("edit", {"search": "a", "replace": "b"}), "edit: argument 'start_line' is missing"),
        (REPLACE, ToolCall("edit", {"search": "a"}), "edit: argument 'replace' is missing"),
        (ZERO, ToolCall("set_cursors", {}), "swe-agent-windowed-0 has no tool 'set_cursors'"),
        (LINES, ToolCall("open", {"path": "a", "line": 1}), "open: unknown argument 'line'"),
    ],
)
def test_a_call_the_tools_do_not_allow_is_an_error(scaffold: SweAgentWindowed, call: ToolCall, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        scaffold.command(call)


@pytest.mark.parametrize(
    ("scaffold", "result", "text", "output"),
    [
        (LINES, CommandResult(f"a\n\n{STATE}", 0), f"a\n{FOOTER}", "a\n"),
        (ZERO, CommandResult(f"a\n\n{STATE}", 0), f"a\n\n{FOOTER}", "a\n\n"),
        (
            LINES,
            CommandResult(f"\n{STATE}", 0),
            f"Your command ran successfully and did not produce any output.{FOOTER}",
            "",
        ),
        (LINES, CommandResult("bye\n", 3), "bye", "bye"),
        (
            LINES,
            CommandResult(f"\x1b[31mred\x1b[0m\x1en/a\x1e/\x1e{STATE}", 0),
            f"red\x1en/a\x1e/\x1e{FOOTER}",
            "red\x1en/a\x1e/\x1e",
        ),
        (
            LINES,
            CommandResult("part", None, 30.2),
            "The command 'x' was cancelled because it took more than 30 seconds. "
            "Please try a different command that completes more quickly.",
            "The command 'x' was cancelled because it took more than 30 seconds. "
            "Please try a different command that completes more quickly.",
        ),
    ],
)
def test_observe(scaffold: SweAgentWindowed, result: CommandResult, text: str, output: str) -> None:
    seen = scaffold.observe(bash("x"), result)
    assert (seen.text, seen.output, seen.returncode) == (text, output, result.returncode)
    assert scaffold.parse_observation(text).output == output


@given(st.sampled_from(WAYS), st.text(max_size=60), st.booleans(), st.sampled_from([None, 0, 1]))
def test_observe_and_parse_agree(way: str, printed: str, known: bool, code: int | None) -> None:
    scaffold = SweAgentWindowed(way)
    seen = scaffold.observe(bash("x"), CommandResult(printed + (STATE if known else ""), code))
    parsed = scaffold.parse_observation(seen.text)
    assert (parsed.text, parsed.output) == (seen.text, seen.output)
    assert parsed.extra == seen.extra


def test_submit_says_whether_it_ended_the_run() -> None:
    call = ToolCall("submit", {})
    assert LINES.observe(call, CommandResult(f"\ndiff\n{STATE}", 0)).extra["submitted"] is True
    assert LINES.observe(call, CommandResult("fatal", 128)).extra["submitted"] is False
    assert [LINES.is_submit(c) for c in (call, bash(" submit\n"), bash("echo submit"))] == [True, True, False]


@pytest.mark.parametrize(
    ("scaffold", "typed", "call"),
    [
        (ZERO, "ls -F\n", bash("ls -F")),
        (ZERO, "open src/a.py 12\n", ToolCall("open", {"path": "src/a.py", "line_number": 12})),
        (ZERO, 'find_file "*.py" src', ToolCall("find_file", {"file_name": "*.py", "dir": "src"})),
        (ZERO, "search_dir 'a $b'", ToolCall("search_dir", {"search_term": "a $b"})),
        (ZERO, "find_file *.py", bash("find_file *.py")),
        (ZERO, 'search_dir "$b"', bash('search_dir "$b"')),
        (ZERO, "open a.py && ls", bash("open a.py && ls")),
        (ZERO, "open a b c", bash("open a b c")),
        (ZERO, "open", bash("open")),
        (ZERO, "scroll_down\n", ToolCall("scroll_down", {})),
        (ZERO, "submit\n", ToolCall("submit", {})),
        (
            ZERO,
            "edit 1:2\n  a\n\nb\nend_of_edit\n",
            ToolCall("edit", {"start_line": 1, "end_line": 2, "replacement_text": "  a\n\nb"}),
        ),
        (REPLACE, "edit 1:2\na\nend_of_edit\n", bash("edit 1:2\na\nend_of_edit")),
        (ZERO, "edit 1:2 a", bash("edit 1:2 a")),
    ],
)
def test_typed_commands(scaffold: SweAgentWindowed, typed: str, call: ToolCall) -> None:
    assert scaffold.parse_command(typed) == call


def test_the_open_file_and_directory_stand_below_every_observation(tmp_path: Path) -> None:
    container = Container(tmp_path)
    container.write("sub/a.py", "x = 1\n")
    assert container.observe("bash", command="cd sub; false").text == (
        "Your command ran successfully and did not produce any output.\n"
        "(Open file: n/a)\n(Current directory: /testbed/sub)\nbash-$"
    )
    assert container.observe("bash", command="cd sub; false").returncode == 1
    assert container.observe("open", path="sub/a.py").text == (
        "[File: sub/a.py (1 lines total)]\n1:x = 1\n(Open file: /testbed/sub/a.py)\n(Current directory: /testbed)\nbash-$"
    )
    assert container.observe("bash", command="echo 'unfinished").text.endswith("\n(Current directory: /testbed)\nbash-$")
    assert container.observe("bash", command="echo bye; exit 3").text == "bye"


def test_version_1_lists_in_columns_where_a_terminal_would(tmp_path: Path) -> None:
    for way, listed in (("lines", "a  b"), ("0", "a\nb\n")):
        container = Container(tmp_path / way, way)
        container.write("a", "")
        container.write("b", "")
        assert container("bash", command="ls") == listed
        assert container("bash", command="ls | cat").split() == ["a", "b"]
        assert "  " not in container("bash", command="ls | cat")
        assert container("bash", command="echo $(ls)").strip() == "a b"


def test_submit_shows_what_is_staged(tmp_path: Path) -> None:
    container = Container(tmp_path)
    container.write("a.txt", "one\n")
    container.bash("git init -q && git add -A && git -c user.name=t -c user.email=t@t commit -q -m base")
    container.write("a.txt", "two\n")
    container.write("b.txt", "new\n")
    seen = container.observe("submit")
    assert (seen.returncode, seen.extra["submitted"]) == (0, True)
    assert seen.compared.startswith("\ndiff --git a/a.txt b/a.txt\nindex ")
    assert seen.compared.endswith("+++ b/b.txt\n@@ -0,0 +1 @@\n+new\n")


# The recorded runs: the part of the repository's file that a run shows is put where the run has it, the rest is filled up, and
# every call on that file is made again. `above` stands before the first line shown and makes it a Python file.
FIELDS = "src/marshmallow/fields.py"
TUPLE = ["class T:", "    def __init__(self, precision, **kwargs):", "        units = ("]
RUNS = {
    "demo__replay__*__default__t-0.20*": ("0", FIELDS, ["class T:", '    """']),
    "demo__replay__*__default_sys-env_window100*": ("0", FIELDS, ["class T:", '    """']),
    "demo__replay__*__xml_sys-env_window100*": ("0", FIELDS, ["class T:", '    """']),
    "demo__replay__*__function_calling__install-1*": ("lines", FIELDS, TUPLE),
    "demo__replay__*__function_calling_replace__install-1*": ("replace-2024", FIELDS, TUPLE),
    "test__gpt4__swe-bench-dev*__pydicom-1458": (
        "0",
        "pydicom/pixel_data_handlers/numpy_handler.py",
        ["def g(ds):", '    """'],
    ),
}


def shown(text: str) -> dict[int, str]:
    """The numbered lines of the last window in an observation."""
    window = text.replace("\r\n", "\n").rsplit("[File: ", 1)[-1]
    return {int(n): line for n, line in re.findall(r"^(\d+):(.*)$", window, re.MULTILINE)}


def as_it_was(steps: list[tuple[ToolCall, str]], file: str, above: list[str]) -> str:
    """The file before the run's edits, as far as it was shown."""
    total, known = 0, dict[int, str]()
    for call, text in steps:
        header = re.search(rf"\[File: \S*{re.escape(file)} \((\d+) lines total\)\]", text)
        if header and call.name == "open":
            total, known = int(header[1]), shown(text)
        elif header and "ERRORS" not in text:
            first, last, moved = min(known), max(known), int(header[1]) - total
            known |= {n: line for n, line in shown(text).items() if n < first}
            known |= {n - moved: line for n, line in shown(text).items() if n - moved > last}
            break
    if known[max(known)].endswith(":"):
        known[max(known) + 1] = " " * 40 + "pass"
    lines = {1: "from x import *"} | {min(known) - len(above) + i: line for i, line in enumerate(above)} | known
    return "".join(f"{lines.get(n, '')}\n" for n in range(1, total + 1))


@pytest.mark.real_data
@pytest.mark.parametrize("run", RUNS)
def test_recorded_windows(run: str, real_data: Path, tmp_path: Path) -> None:
    way, file, above = RUNS[run]
    (path,) = (real_data / "trajectories" / "swe_agent").glob(f"{run}.traj")
    trajectory = SweAgentReader().read(json.loads(path.read_text()), Origin(path.stem))
    assert get_scaffold(trajectory.scaffold).name == SweAgentWindowed(way).name
    container = Container(tmp_path, way)
    steps: list[tuple[ToolCall, Any]] = [
        (step.action.call, step.turn.observation.compared) for step in trajectory.steps() if step.turn.observation
    ]
    container.write(file, as_it_was(steps, file, above))
    workdir = str(trajectory.workdir)
    compared = 0
    for call, recorded in steps:
        if call.name in ("bash", "submit") or call.arguments.get("path") == "setup.py":
            continue
        for found in re.findall(rf"^{workdir}/(.*)$", recorded, re.MULTILINE) if call.name == "find_file" else ():
            if not (container.testbed / found.strip()).exists():
                container.write(found.strip(), "")
        observed = container(call.name, **call.arguments)
        assert observed.replace("/testbed", workdir) == recorded.replace("\r\n", "\n"), call
        compared += 1
    assert compared >= 6
