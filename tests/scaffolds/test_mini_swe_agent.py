"""mini-swe-agent 1's texts, both ways, and on every recorded observation there is."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action, CommandResult, Observation, ToolCall
from swe_srl.scaffolds.mini_swe_agent import LIMIT, MiniSweAgent, submission

MINI = MiniSweAgent()
LS = ToolCall("bash", {"command": "ls"})


def test_is_found_by_name() -> None:
    assert isinstance(get_scaffold("mini-swe-agent"), MiniSweAgent)
    assert (MINI.persistent_shell, MINI.timeout_seconds) == (False, 60.0)
    assert dict(MINI.environment) == {
        "PAGER": "cat", "MANPAGER": "cat", "LESS": "-R", "PIP_PROGRESS_BAR": "off", "TQDM_DISABLE": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("THOUGHT: look\n\n```bash\n  ls -a\n\n```", Action((ToolCall("bash", {"command": "ls -a"}),))),
        ("```bash   \n\nls\n```\nthat is all", Action((ToolCall("bash", {"command": "ls"}),))),
        ("no block", Action(error="found 0 bash blocks")),
        ("```sh\nls\n```", Action(error="found 0 bash blocks")),
        ("```bash\nls", Action(error="found 0 bash blocks")),
        ("```bash\nls\n```\n```bash\npwd\n```", Action(error="found 2 bash blocks")),
    ],
)
def test_action_is_the_only_block(text: str, action: Action) -> None:
    assert MINI.parse_action(text) == action


def test_thought_is_the_prose_before_the_only_block() -> None:
    assert MINI.thought("THOUGHT: look\n\n```bash\nls\n```\nafter") == "THOUGHT: look"
    assert MINI.thought("a\n```bash\nls\n```\n```bash\npwd\n```\n") == "a\n```bash\nls\n```\n```bash\npwd\n```"


def test_command_is_the_argument_and_nothing_else_is_taken() -> None:
    assert MINI.command(ToolCall("bash", {"command": "cd x && ls"})) == "cd x && ls"
    for call in (
        ToolCall("edit", {"command": "ls"}),
        ToolCall("bash", {}),
        ToolCall("bash", {"command": 1}),
        ToolCall("bash", {"command": "ls", "timeout": 1}),
    ):
        with pytest.raises(ValueError, match="bash"):
            MINI.command(call)


def test_short_output_is_shown_whole_with_the_line_ends_of_text_mode() -> None:
    assert MINI.observe(LS, CommandResult("a\r\nb\rc\n", 2)) == Observation(
        "<returncode>2</returncode>\n<output>\na\nb\nc\n</output>", "a\nb\nc\n", 2
    )
    assert MINI.observe(LS, CommandResult("", 0)).text == "<returncode>0</returncode>\n<output>\n</output>"


def test_output_is_shown_by_its_ends_from_ten_thousand_characters_on() -> None:
    whole = MINI.observe(LS, CommandResult("x" * (LIMIT - 1), 0))
    assert whole.text == "<returncode>0</returncode>\n<output>\n" + "x" * (LIMIT - 1) + "</output>"

    cut = MINI.observe(LS, CommandResult("a" * 5000 + "bcd" + "e" * 5000, 1))
    assert cut.text.startswith("<returncode>1</returncode>\n<warning>\nThe output of your last command was too long.\n")
    assert cut.text.endswith(
        "and then search in that file.\n</warning><output_head>\n" + "a" * 5000 + "\n</output_head>\n<elided_chars>\n"
        "3 characters elided\n</elided_chars>\n<output_tail>\n" + "e" * 5000 + "\n</output_tail>"
    )
    assert cut.output == "a" * 5000 + "\n[3 characters elided]\n" + "e" * 5000
    assert cut.extra == {"elided_chars": 3}
    assert "\n0 characters elided\n" in MINI.observe(LS, CommandResult("x" * LIMIT, 0)).text


def test_killed_command_shows_what_it_had_printed() -> None:
    observed = MINI.observe(ToolCall("bash", {"command": "sleep 99"}), CommandResult("so far\r\n", None))
    assert observed == Observation(
        "The last command <command>sleep 99</command> timed out and has been killed.\nThe output of the command was:\n"
        " <output>\nso far\r\n\n</output>\n"
        "Please try another command and make sure to avoid those requiring interactive input.",
        "so far\r\n",
        None,
        {"timed_out": True},
    )


def test_marker_on_the_first_line_makes_the_rest_the_observation() -> None:
    result = CommandResult("\nCOMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\ndiff --git a/x b/x\n", 0)
    assert MINI.observe(LS, result) == Observation("diff --git a/x b/x\n", "diff --git a/x b/x\n", 0, {"submitted": True})
    assert submission("MINI_SWE_AGENT_FINAL_OUTPUT") == ""
    assert submission("before\nCOMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n") is None
    assert submission("") is None


@pytest.mark.parametrize(
    ("command", "submits"),
    [
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A && git diff --cached", True),
        ("rm -rf x\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && git add -A", True),
        ("git add -A && echo 'MINI_SWE_AGENT_FINAL_OUTPUT'", True),
        ("grep COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT README.md", False),
        ("echo not COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", False),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUTS", False),
    ],
)
def test_submit_is_an_echo_of_the_marker(command: str, submits: bool) -> None:
    assert MINI.is_submit(ToolCall("bash", {"command": command})) is submits


def test_other_texts_are_kept_unread() -> None:
    error = "Please always provide EXACTLY ONE action in triple backticks, found 2 actions.\n…"
    assert MINI.parse_observation(error) == Observation(error, extra={"format_error": True})
    assert MINI.parse_observation("diff --git") == Observation("diff --git")
    assert MINI.parse_observation("<returncode>0</returncode>\n<output>\ncut") == Observation(
        "<returncode>0</returncode>\n<output>\ncut"
    )


MARKUP = st.sampled_from(
    ["</output>", "\n</output_head>\n", "<returncode>1</returncode>\n", "</command>", "\r\n", "é", "x" * 4990]
)


@given(st.lists(st.one_of(st.text(), MARKUP)).map("".join), st.one_of(st.none(), st.integers(-255, 255)))
def test_observations_are_read_back_as_they_were_made(output: str, returncode: int | None) -> None:
    observed = MINI.observe(LS, CommandResult(output, returncode))
    if not observed.extra.get("submitted"):
        assert MINI.parse_observation(observed.text) == observed


@pytest.mark.real_data
def test_every_recorded_observation_is_rendered_again_byte_for_byte(real_data: Path) -> None:
    kinds: Counter[str] = Counter()
    files = sorted((real_data / "trajectories" / "mini_swe_agent_v1").glob("*.traj.json"))
    for file in files:
        messages = json.loads(file.read_text(encoding="utf-8"))["messages"]
        for before, message in pairwise(messages[2:-1]):
            if message["role"] != "user":
                continue
            text = message["content"]
            seen = MINI.parse_observation(text)
            if seen.output is None:
                kinds["format error" if seen.extra.get("format_error") else "unread"] += 1
                continue
            elided = seen.extra.get("elided_chars")
            # What was elided is lost: any other text of the same length renders to the same observation.
            output = seen.output if elided is None else seen.output[:5000] + "?" * elided + seen.output[-5000:]
            call = MINI.parse_action(before["content"]).call
            assert MINI.observe(call, CommandResult(output, seen.returncode)) == seen, file
            kinds["timed out" if seen.returncode is None else "short" if elided is None else "long"] += 1
    assert len(files) == 279
    assert kinds == {"short": 9923, "long": 259, "timed out": 7, "format error": 338}
