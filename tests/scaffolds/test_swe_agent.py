"""SWE-agent's interface: commands as a shell runs them, templates, and the recorded runs call by call."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from swe_srl.scaffolds.base import CommandResult, Observation, Scaffold, ToolCall
from swe_srl.scaffolds.swe_agent import SweAgent

UNKNOWN = "# unknown"


def bash(command: str) -> ToolCall:
    return ToolCall("bash", {"command": command})


def editor(**arguments: Any) -> ToolCall:
    return ToolCall("str_replace_editor", arguments)


SUBMIT = ToolCall("submit", {})


class Container:
    """A folder that stands for a container: tools installed, a repository in `testbed`, `root` cut off the paths it shows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "usr/local/bin"
        self.testbed = root / "testbed"
        self.bin.mkdir(parents=True)
        self.testbed.mkdir()
        self.scaffold = SweAgent(workdir=str(self.testbed), review=True)
        for file in self.scaffold.tool_files:
            installed = root / file.path.lstrip("/")
            installed.write_bytes(file.content.replace(b"/usr/local/bin/str_replace", f"{self.bin}/str_replace".encode()))
            installed.chmod(0o755)

    def commit(self) -> None:
        self.bash("git init -q && git add -A && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m base")

    def bash(self, script: str) -> CommandResult:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "SWE_SRL_STATE": str(self.root / "state")}
        done = subprocess.run(
            ["bash"],
            input=script.replace("/usr/local/bin", str(self.bin)).encode(),
            cwd=self.testbed,
            env={**environment, **self.scaffold.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return CommandResult(done.stdout.decode(), done.returncode)

    def call(self, call: ToolCall) -> Observation:
        if "path" in call.arguments:
            call = ToolCall(call.name, {**call.arguments, "path": str(self.root) + call.arguments["path"]})
        observed = self.scaffold.observe(call, self.bash(self.scaffold.command(call)))
        return Observation(observed.text.replace(str(self.root), ""), observed.output, observed.returncode, observed.extra)


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_is_a_scaffold() -> None:
    scaffold: Scaffold = SweAgent()
    assert (scaffold.name, scaffold.persistent_shell, scaffold.timeout_seconds) == ("swe-agent", True, 300.0)
    assert [tool["function"]["name"] for tool in scaffold.tools] == ["bash", "str_replace_editor", "submit"]
    assert [file.path for file in scaffold.tool_files] == [
        "/usr/local/bin/str_replace_editor.py",
        "/usr/local/bin/str_replace_editor",
        "/usr/local/bin/submit",
    ]
    assert scaffold.environment["PAGER"] == "cat"
    json.dumps(scaffold.tools)


def test_commands() -> None:
    scaffold = SweAgent(workdir="/work dir")
    assert scaffold.command(bash("cd x && ls\n")) == "cd x && ls\n"
    assert scaffold.command(SUBMIT) == "/usr/local/bin/submit '/work dir'"
    assert SweAgent(review=True).command(SUBMIT) == "/usr/local/bin/submit /testbed review"
    assert scaffold.command(editor(command="create", path="/a", file_text="é\nEND_OF_ARGUMENTS\n$x")) == (
        "/usr/local/bin/str_replace_editor <<'END_OF_ARGUMENTS'\n"
        '{"command": "create", "path": "/a", "file_text": "\\u00e9\\nEND_OF_ARGUMENTS\\n$x"}\n'
        "END_OF_ARGUMENTS"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("python", {}), "swe-agent has no tool 'python'"),
        (ToolCall("bash", {}), "bash: argument 'command' is missing"),
        (ToolCall("bash", {"command": None}), "bash: argument 'command' is missing"),
        (ToolCall("bash", {"command": "ls", "cwd": "/"}), "bash: unknown argument 'cwd'"),
        (ToolCall("bash", {"command": ["ls"]}), "bash: argument 'command' must be text, not list"),
        (editor(command="view"), "str_replace_editor: argument 'path' is missing"),
        (
            editor(command="create", path="/a", file_text={}),
            "str_replace_editor: argument 'file_text' must be text, not dict",
        ),
        (ToolCall("submit", {"force": True}), "submit: unknown argument 'force'"),
    ],
)
def test_a_call_the_tools_do_not_allow_is_an_error(call: ToolCall, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SweAgent().command(call)


def test_is_submit() -> None:
    scaffold = SweAgent()
    calls = [SUBMIT, bash(" submit\n"), bash("echo submit"), editor(command="view", path="submit"), ToolCall("bash", {})]
    assert [scaffold.is_submit(call) for call in calls] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("result", "text", "output"),
    [
        (CommandResult("a\n", 0), "OBSERVATION:\na", "a"),
        (CommandResult("\n  a\nb \n\n", 1), "OBSERVATION:\na\nb", "a\nb"),
        (CommandResult("\x1b[1;31mred\x1b[0m\n", 0), "OBSERVATION:\nred", "red"),
        (CommandResult("", 0), "Your command ran successfully and did not produce any output.", ""),
        (CommandResult(" \n", 2), "Your command ran successfully and did not produce any output.", ""),
        (CommandResult("x" * 100_000, 0), "OBSERVATION:\n" + "x" * 100_000, "x" * 100_000),
        (
            CommandResult("x" * 100_000 + "yz", 0),
            "Observation: " + "x" * 100_000 + "<response clipped><NOTE>Observations should not exceeded 100000 characters. "
            "2 characters were elided. Please try a different command that produces less output or use head/tail/grep/redirect "
            "the output to a file. Do not use interactive pagers.</NOTE>",
            "x" * 100_000,
        ),
        (
            CommandResult("so far\n", None, seconds=300.2),
            "OBSERVATION:\nThe command 'sleep {x}' was cancelled because it took more than 300 seconds. "
            "Please try a different command that completes more quickly.",
            "The command 'sleep {x}' was cancelled because it took more than 300 seconds. "
            "Please try a different command that completes more quickly.",
        ),
    ],
    ids=["plain", "stripped", "colours", "empty", "blank", "limit", "clipped", "timeout"],
)
def test_observe_and_parse_agree(result: CommandResult, text: str, output: str) -> None:
    scaffold = SweAgent()
    assert scaffold.observe(bash("sleep {x}"), result) == Observation(text, output, result.returncode)
    assert scaffold.parse_observation(text) == Observation(text, output)


def test_what_is_not_an_observation_has_no_output() -> None:
    text = "Your last output did not use any tool calls!"
    assert SweAgent().parse_observation(text) == Observation(text, None)
    assert SweAgent().parse_observation("OBSERVATION:\na\r\nb") == Observation("OBSERVATION:\na\r\nb", "a\r\nb")


@pytest.mark.real_data
def test_the_clipped_note_matches_the_recorded_template(real_data: Path) -> None:
    recorded = sorted((real_data / "trajectories/swe_agent").glob("smith__*.traj"))
    assert len(recorded) == 3
    for file in recorded:
        agent = json.loads(json.loads(file.read_text())["replay_config"])["agent"]
        template = agent["templates"]["next_step_truncated_observation_template"]
        filled = template.replace("{{observation}}", "x" * 100_000).replace("{{max_observation_length}}", "100000")
        observed = SweAgent().observe(bash("x"), CommandResult("x" * 100_007, 0))
        assert observed.text == filled.replace("{{elided_chars}}", "7")


def test_a_text_longer_than_one_argument_reaches_the_file(container: Container) -> None:
    text = "START\nEND_OF_ARGUMENTS\n" + "'\"$é\\\n" * 40_000
    observed = container.call(editor(command="create", path="/testbed/big.txt", file_text=text))
    assert observed.text == "OBSERVATION:\nFile created successfully at: /testbed/big.txt"
    assert (container.testbed / "big.txt").read_text() == text


def test_the_editor_survives_the_agents_python_settings(container: Container) -> None:
    (container.testbed / "json.py").write_text("raise SystemExit('wrong json')")
    script = container.scaffold.command(editor(command="view", path=f"{container.testbed}/json.py"))
    result = container.bash(f"export PYTHONPATH=. PYTHONHOME=/nowhere PYTHONIOENCODING=ascii\n{script}")
    assert (result.returncode, result.output.splitlines()[1]) == (0, "     1\traise SystemExit('wrong json')")


def test_the_editor_works_as_a_command_line(container: Container) -> None:
    (container.testbed / "a.txt").write_text("one\ntwo\nthree\n")
    result = container.bash("/usr/local/bin/str_replace_editor view $PWD/a.txt --view_range 2 3")
    assert result.output.splitlines()[1:] == ["     2\ttwo", "     3\tthree", ""]


def test_submit_reviews_once_then_shows_the_bare_diff(container: Container) -> None:
    (container.testbed / "a.txt").write_text("old\n")
    container.commit()
    (container.testbed / "a.txt").write_text("new\n")
    (container.testbed / "b.txt").write_text("added")
    diff = (
        "diff --git a/a.txt b/a.txt\nindex 3367afd..3e75765 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-old\n+new\n"
        "diff --git a/b.txt b/b.txt\nnew file mode 100644\nindex 0000000..53bf775\n--- /dev/null\n+++ b/b.txt\n@@ -0,0 +1 @@\n"
        "+added\n\\ No newline at end of file\n"
    )
    review = container.call(SUBMIT)
    assert review.text.startswith("OBSERVATION:\nThank you for your work on this issue. Please carefully follow")
    assert review.text.endswith(f"Here is a list of all of your changes:\n\n<diff>\n{diff}\n</diff>")
    assert review.extra == {"submitted": False}
    final = container.call(SUBMIT)
    assert final == Observation("OBSERVATION:\n" + diff, diff, 0, {"submitted": True})


def test_submit_without_review_shows_the_bare_diff_at_once(container: Container) -> None:
    (container.testbed / "a.txt").write_text("old\n")
    container.commit()
    (container.testbed / "a.txt").write_text("new\n")
    container.scaffold = SweAgent(workdir=str(container.testbed))
    submitted = container.call(SUBMIT)
    assert submitted.output == (
        "diff --git a/a.txt b/a.txt\nindex 3367afd..3e75765 100644\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-old\n+new\n"
    )
    assert submitted.extra == {"submitted": True}


def test_submit_outside_a_repository_fails_aloud(container: Container) -> None:
    observed = container.call(SUBMIT)
    assert "not a git repository" in observed.text
    assert observed.extra == {"submitted": False}


def recorded_calls(file: Path) -> list[tuple[ToolCall, str]]:
    """The calls of a recorded run with what the agent saw, line ends made plain."""
    calls, seen = {}, []
    for message in json.loads(file.read_text())["history"]:
        for call in message.get("tool_calls") or []:
            calls[call["id"]] = ToolCall(call["function"]["name"], json.loads(call["function"]["arguments"]))
        if message["role"] == "tool":
            text = message["content"][0]["text"]
            seen.append((calls[message["tool_call_ids"][0]], text.replace("\r\n", "\n")))
    return seen


def shown_lines(observation: str) -> dict[int, str]:
    """Line number and text of what a view showed. A body left out of an outline becomes a string of as many lines."""
    lines: dict[int, str] = {}
    indent = ""
    whole, clipped, _ = observation.partition("<response clipped>")
    if clipped:
        whole = whole.rpartition("\n")[0]
    for number, text in re.findall(r"^ *(\d+)(?:[\t ](.*))?$", whole, re.MULTILINE):
        elided = re.fullmatch(r"\.\.\. eliding lines (\d+)-(\d+) \.\.\.", text)
        if elided:
            first, last = int(elided[1]), int(elided[2])
            lines.update(dict.fromkeys(range(first, last), "x" * 79))
            lines[first], lines[last] = f'{indent}    """', '"""'
        else:
            lines[int(number)] = text
            if re.match(r"\s*(async )?def ", text):
                indent = text[: len(text) - len(text.lstrip())]
    return lines


def learn(file: Path, shown: dict[int, str], beyond: int) -> bool:
    """Put lines that were shown into a file, unknown ones around them and beyond; True when it held every one already."""
    before = file.read_text().split("\n") if file.exists() else []
    missing = max(shown, default=0) - len(before)
    lines = before + [UNKNOWN] * (missing + beyond if missing > 0 else 0)
    for number, text in shown.items():
        lines[number - 1] = text
    if lines != before:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    return lines == before


def prepare(container: Container, call: ToolCall, recorded: str) -> bool:
    """Give the container what the recording tells only now of the file a call works on; True when it was all known before."""
    file, shown = Path(str(container.root) + call.arguments["path"]), shown_lines(recorded)
    if call.arguments["command"] == "view":
        whole = "view_range" not in call.arguments and "eliding lines" not in recorded
        return learn(file, shown, beyond=0 if whole else 9)
    if call.arguments["command"] == "str_replace":
        text = file.read_text()
        unchanged = text[: text.index(call.arguments["old_str"])].count("\n")
        return learn(file, {n: line for n, line in shown.items() if n <= unchanged}, beyond=0)
    return True


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("run", "ignored", "expected"),
    [
        ("pandas-dev__pandas.95280573.pr_53652", None, {"all": 4, "form": 13}),
        ("pandas-dev__pandas.95280573.pr_53856", None, {"all": 3, "form": 3}),
        ("pydantic__pydantic.acb0f10f.pr_8316", "test_edge_cases.py", {"all": 10, "form": 1}),
    ],
)
def test_recorded_runs(run: str, ignored: str | None, expected: dict[str, int], real_data: Path, container: Container) -> None:
    """Every editor call answers as recorded; so does `submit` in the run that shows the whole of the file it changes.

    all: the whole answer follows from what the recording showed earlier. form: some of its lines are unchanged lines of the
    repository that the recording shows here for the first time; they are taken from the answer itself.
    """
    checked: Counter[str] = Counter()
    for call, recorded in recorded_calls(real_data / f"trajectories/swe_agent/smith__{run}.traj"):
        if call.name == "str_replace_editor":
            known = prepare(container, call, recorded)
            if ignored and not known:
                container.commit()
                (container.testbed / ".git/info/exclude").write_text(ignored)
        elif call.name == "submit" and ignored:
            known = True
        elif call.arguments.get("command", "").startswith("rm /testbed"):
            container.bash(call.arguments["command"].replace("/testbed", str(container.testbed)))
            continue
        else:
            continue
        assert container.call(call).text == recorded
        checked["all" if known else "form"] += 1
    assert checked == expected
