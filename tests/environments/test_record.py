"""Demonstrations are recorded from written scripts: thoughts and actions by hand, observations and outcome from the sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest
from docker import DockerClient
from tiny import FILES, MakeTask

from swe_srl.environments.image import build_image
from swe_srl.environments.record import Script, ScriptStep, load_script, record
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, ToolCall

SCRIPT = """\
task = "tiny"

[[steps]]
thought = "Look."
tool = "bash"
arguments = { command = "ls" }

[[steps]]
thought = "Done."
tool = "submit"
"""


def _load(tmp_path: Path, text: str) -> Script:
    (tmp_path / "script.toml").write_text(text)
    return load_script(tmp_path / "script.toml")


def test_a_script(tmp_path: Path) -> None:
    look = ScriptStep(thought="Look.", tool="bash", arguments={"command": "ls"})
    done = ScriptStep(thought="Done.", tool="submit", arguments={})
    assert _load(tmp_path, SCRIPT).model_dump() == Script(task="tiny", scaffold="swe-agent", steps=[look, done]).model_dump()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('task = "tiny"', "", "task: Field required"),
        ('task = "tiny"', 'task = "tiny"\nobservation = ""', "observation: Extra inputs are not permitted"),
        ('thought = "Look."', "", "steps.0.thought: Field required"),
        ('thought = "Done."', 'thought = ""', "steps.1.thought: String should have at least 1 character"),
        ('tool = "bash"', 'tool = "bash"\noutput = "x"', "steps.0.output: Extra inputs are not permitted"),
        ('tool = "submit"', "tool = 1", "steps.1.tool: Input should be a valid string"),
        ('{ command = "ls" }', '"ls"', "steps.0.arguments: Input should be a valid dictionary"),
        (SCRIPT, 'task = "tiny"\nsteps = []', "steps: List should have at least 1 item after validation, not 0"),
    ],
)
def test_a_bad_script_is_named_by_its_field(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in SCRIPT
    with pytest.raises(UserError) as failure:
        _load(tmp_path, SCRIPT.replace(old, new))
    assert str(failure.value) == f"{tmp_path}/script.toml: {reason}"


def test_a_script_that_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/script.toml: not valid TOML: Invalid value"):
        _load(tmp_path, "task = ")
    (tmp_path / "script.toml").write_bytes(b'task = "\xff"')
    with pytest.raises(UserError, match="not valid TOML: 'utf-8' codec"):
        load_script(tmp_path / "script.toml")
    with pytest.raises(UserError, match=rf"^{tmp_path}/none.toml: No such file or directory$"):
        load_script(tmp_path / "none.toml")


def test_what_is_recorded(client: DockerClient, base_image: str, make_task: MakeTask, tmp_path: Path) -> None:
    tests = {"test_command": "echo === short test summary info ===; . ./run.sh && echo PASSED a || echo FAILED a"}
    task = make_task({**FILES, "run.sh": "false\n"}, problem_statement="\nIt fails.\n", repo="lib", fail_to_pass=["a"], **tests)
    image = build_image(client, task).tag
    steps = [
        {"thought": " Go to tmp.\n", "tool": "bash", "arguments": {"command": "cd /tmp"}},
        {"thought": "Where?", "tool": "bash", "arguments": {"command": "pwd; exit 3"}},
        {"thought": "A tool that is not there.", "tool": "open", "arguments": {"path": "a"}},
        {"thought": "Mend it.", "tool": "bash", "arguments": {"command": "echo true > /testbed/run.sh"}},
        {"thought": "Done.", "tool": "submit"},
    ]
    done = record(client, image, task, Script.model_validate({"task": task.id, "steps": steps}))
    assert [(turn.role, turn.text, turn.thought) for turn in done.turns] == [
        ("user", "It fails.", ""),
        ("agent", "", "Go to tmp."),
        ("agent", "", "Where?"),
        ("agent", "", "A tool that is not there."),
        ("agent", "", "Mend it."),
        ("agent", "", "Done."),
    ]
    assert done.turns[2].action == Action((ToolCall("bash", {"command": "pwd; exit 3"}, "call_1"),))
    seen = [turn.observation for turn in done.turns[1:]]
    assert [(one.text, one.returncode) for one in seen[:4] if one] == [
        ("Your command ran successfully and did not produce any output.", 0),
        ("OBSERVATION:\n/tmp", 3),
        ("OBSERVATION:\nswe-agent has no tool 'open'", 1),
        ("Your command ran successfully and did not produce any output.", 0),
    ]
    assert done.submission == (
        "diff --git a/run.sh b/run.sh\nindex c508d5366..27ba77dda 100644\n"
        "--- a/run.sh\n+++ b/run.sh\n@@ -1 +1 @@\n-false\n+true\n"
    )
    assert (done.id, done.task_id, done.scaffold, done.format) == (f"{task.id}-demonstration", task.id, "swe-agent", "atif")
    assert (done.resolved, done.exit_status, done.extra) == (True, "submitted", {"repo": "lib"})
    looked = record(client, image, task, Script.model_validate({"task": task.id, "steps": steps[:2]}))
    assert (looked.resolved, looked.exit_status, looked.submission) == (False, None, None)


def test_the_other_scaffold_starts_every_command_afresh(
    client: DockerClient, base_image: str, make_task: MakeTask, tmp_path: Path
) -> None:
    task = make_task()
    steps = [{"thought": "x", "tool": "bash", "arguments": {"command": command}} for command in ("cd /tmp", "pwd")]
    steps.append({"thought": "x", "tool": "edit", "arguments": {"command": "pwd"}})
    script = Script.model_validate({"task": task.id, "scaffold": "mini-swe-agent", "steps": steps})
    done = record(client, build_image(client, task).tag, task, script)
    assert [turn.observation.text for turn in done.turns[1:] if turn.observation] == [
        "<returncode>0</returncode>\n<output>\n</output>",
        "<returncode>0</returncode>\n<output>\n/testbed\n</output>",
        "mini-swe-agent has one tool, bash; found 'edit'",
    ]
    assert done.resolved is None


def test_an_unknown_scaffold(client: DockerClient, make_task: MakeTask) -> None:
    script = Script.model_validate({"task": "t", "scaffold": "other", "steps": [{"thought": "x", "tool": "bash"}]})
    with pytest.raises(UserError, match="unknown scaffold 'other'; known: mini-swe-agent, mini-swe-agent-2, openhands, swe-agent, swe-agent-review"):
        record(client, "none", make_task(), script)
