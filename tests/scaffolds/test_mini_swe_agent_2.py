"""mini-swe-agent 2's texts, both ways, and on every recorded observation there is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall
from swe_srl.scaffolds.mini_swe_agent import LIMIT
from swe_srl.scaffolds.mini_swe_agent_2 import MiniSweAgent2

MINI = MiniSweAgent2()
LS = ToolCall("bash", {"command": "ls"})


def test_is_found_by_name() -> None:
    assert isinstance(get_scaffold("mini-swe-agent-2"), MiniSweAgent2)
    assert (MINI.name, MINI.persistent_shell, MINI.timeout_seconds) == ("mini-swe-agent-2", False, 60.0)


def test_command_is_the_argument_and_nothing_else_is_taken() -> None:
    assert MINI.command(ToolCall("bash", {"command": "cd x && ls"})) == "cd x && ls"
    with pytest.raises(ValueError, match="one tool, bash; found 'edit'"):
        MINI.command(ToolCall("edit", {"command": "ls"}))
    with pytest.raises(ValueError, match="one text argument, command"):
        MINI.command(ToolCall("bash", {"command": "ls", "timeout": 1}))


def test_output_is_shown_whole_below_ten_thousand_characters() -> None:
    assert MINI.observe(LS, CommandResult("a\r\nb\n", 2)) == Observation(
        "<returncode>2</returncode>\n<output>\na\nb\n</output>", "a\nb\n", 2
    )
    cut = MINI.observe(LS, CommandResult("a" * 5000 + "bcd" + "e" * 5000, 1))
    assert cut.output == "a" * 5000 + "\n[3 characters elided]\n" + "e" * 5000
    assert cut.text.endswith("<output_tail>\n" + "e" * 5000 + "\n</output_tail>")
    assert cut.extra == {"elided_chars": 3}


def test_killed_command_has_an_exception_and_return_code_minus_one() -> None:
    observed = MINI.observe(ToolCall("bash", {"command": "sleep '9'\n"}), CommandResult("so far\n", None, seconds=60.02))
    assert observed == Observation(
        "<exception>An error occurred while executing the command: Command '['bash', '-c', \"sleep '9'\\n\"]' "
        "timed out after 60 seconds</exception>\n<returncode>-1</returncode>\n<output>\nso far\n</output>",
        "so far\n",
        -1,
        {"timed_out": True},
    )
    assert MINI.observe(LS, CommandResult("x" * (LIMIT + 7), None)).extra == {"elided_chars": 7, "timed_out": True}


def test_another_exception_is_no_time_out() -> None:
    text = "<exception>An error occurred: no\nsuch</exception>\n<returncode>-1</returncode>\n<output>\n</output>"
    assert MINI.parse_observation(text) == Observation(text, "", -1)


def test_a_successful_command_whose_first_line_is_the_marker_submits_the_rest() -> None:
    output = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\ndiff --git a/x b/x\n"
    submitted = Observation("diff --git a/x b/x\n", "diff --git a/x b/x\n", 0, {"submitted": True})
    assert MINI.observe(LS, CommandResult(output, 0)) == submitted
    assert MINI.observe(LS, CommandResult(output, 1)).text == f"<returncode>1</returncode>\n<output>\n{output}</output>"
    assert not MINI.observe(LS, CommandResult("MINI_SWE_AGENT_FINAL_OUTPUT\n", 0)).extra


@pytest.mark.parametrize(
    ("command", "submits"),
    [
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt", True),
        ("cd /testbed && echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat patch.txt", True),
        ("echo MINI_SWE_AGENT_FINAL_OUTPUT", False),
        ("grep COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT README.md", False),
    ],
)
def test_submit_is_an_echo_of_the_marker(command: str, submits: bool) -> None:
    assert MINI.is_submit(ToolCall("bash", {"command": command})) is submits


def test_other_texts_are_kept_unread() -> None:
    error = "Tool call error:\n\n<error>\nNo tool calls found\n</error>\n"
    assert MINI.parse_observation(error) == Observation(error, extra={"format_error": True})
    assert MINI.parse_observation("diff --git") == Observation("diff --git")
    assert MINI.parse_observation("<exception>cut</exception>\n<returncode>") == Observation(
        "<exception>cut</exception>\n<returncode>"
    )


MARKUP = [
    "</output>",
    "</exception>\n<returncode>-1</returncode>\n<output>\n",
    "<returncode>1</returncode>\n",
    "é",
    "\r\n",
    "'",
]
TEXT = st.lists(st.one_of(st.text(), st.sampled_from([*MARKUP, "x" * 4990]))).map("".join)


@given(TEXT, TEXT, st.one_of(st.none(), st.integers(-255, 255)))
def test_observations_are_read_back_as_they_were_made(command: str, output: str, returncode: int | None) -> None:
    observed = MINI.observe(ToolCall("bash", {"command": command}), CommandResult(output, returncode, seconds=60.0))
    if not observed.extra.get("submitted"):
        assert MINI.parse_observation(observed.text) == observed


@pytest.mark.real_data
def test_every_recorded_observation_is_rendered_again_byte_for_byte(real_data: Path) -> None:
    kinds: Counter[str] = Counter()
    files = sorted((real_data / "trajectories" / "mini_swe_agent_v2").glob("*.traj.json"))
    for file in files:
        for message in json.loads(file.read_text(encoding="utf-8"))["messages"]:
            if message["role"] != "tool":
                continue
            text, kept = message["content"], message["extra"]
            seen = MINI.parse_observation(text)
            assert seen.returncode == kept["returncode"]
            if seen.extra.get("timed_out"):
                # The recording names the container, which no replay has: all but that is rendered again.
                again = MINI.observe(LS, CommandResult(kept["raw_output"], None, seconds=60.0))
                assert again.text.split("</exception>")[1] == text.split("</exception>")[1]
                assert again.text.split("'[")[0] == text.split("'[")[0]
                assert again.text.split("]'")[1] == text.split("]'")[1]
                assert (again.output, again.returncode, again.extra) == (seen.output, seen.returncode, seen.extra)
                kinds["timed out"] += 1
            else:
                assert MINI.observe(LS, CommandResult(kept["raw_output"], kept["returncode"])) == seen, file
                kinds["long" if seen.extra else "short"] += 1
    assert len(files) == 15
    assert kinds == {"short": 1231, "long": 5, "timed out": 1}
