from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swe_srl.policy.prompts import (
    Cut,
    PromptOptions,
    PromptTooLongError,
    cuts,
    encode_answer,
    encode_prompt,
    encode_step,
    end_of_turn_id,
    render_messages,
    truncate,
)
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Step, Trajectory, Turn

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "edit",
            "description": "Edit\n  files.",
            "parameters": {
                "type": "object",
                "properties": {
                    "command": {"type": "string", "enum": ["view", "insert"], "description": "What to do."},
                    "view_range": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["command"],
            },
        },
    },
    {"type": "function", "function": {"name": "submit", "parameters": {"type": "object", "properties": {}}}},
]

DEFAULT = PromptOptions()


def bash(command: str) -> Action:
    return Action((ToolCall("bash", {"command": command}),))


def agent(command: str, observation: str | None = "out", thought: str = "why") -> Turn:
    seen = None if observation is None else Observation(observation)
    return Turn("agent", f"raw {command}", thought, bash(command), seen)


def last_step(*turns: Turn) -> Step:
    steps = list(Trajectory("t", "task", "mini-swe-agent", "test", (*turns, agent("target"))).steps())
    return steps[-1]


def shown(*turns: Turn, options: PromptOptions = DEFAULT) -> list[tuple[str, str]]:
    """The messages after the system's."""
    messages = render_messages(last_step(*turns), TOOLS, options)
    assert messages[0]["role"] == "system"
    return [(m["role"], m["content"]) for m in messages[1:]]


def said(command: str) -> str:
    return f"<think>\nwhy\n</think>\n<function=bash>\n<parameter=command>{command}</parameter>\n</function>"


SYSTEM, USER = Turn("system", "recorded system"), Turn("user", "The issue.")


def test_the_system_message_describes_the_format_and_the_tools() -> None:
    system = render_messages(last_step(SYSTEM, USER), TOOLS, PromptOptions())[0]["content"]
    assert "recorded system" not in system
    assert "<think>\n" in system
    assert system.endswith(
        "- edit: Edit files.\n  - command (one of view, insert): What to do.\n  - view_range? (array of integer)\n- submit"
    )


def test_the_first_step_sees_the_problem_only() -> None:
    assert shown(SYSTEM, USER) == [("user", "The issue.")]


def test_the_last_two_pairs_are_shown_and_the_target_is_not() -> None:
    assert shown(SYSTEM, USER, agent("a"), agent("b", "B"), agent("c", "C")) == [
        ("user", "The issue."),
        ("assistant", said("b")),
        ("user", "B"),
        ("assistant", said("c")),
        ("user", "C"),
    ]


@pytest.mark.parametrize(("pairs", "commands"), [(None, "abc"), (0, ""), (1, "c"), (9, "abc")])
def test_the_window_has_the_size_asked_for(pairs: int | None, commands: str) -> None:
    messages = shown(USER, agent("a"), agent("b"), agent("c"), options=PromptOptions(last_pairs=pairs))
    assert [content for role, content in messages if role == "assistant"] == [said(c) for c in commands]


def test_malformed_turns_stay_as_written_and_messages_of_one_side_are_joined() -> None:
    malformed = Turn("agent", "two blocks", action=Action(error="found 2 bash blocks"))
    silent = Turn("agent", "no call at all", action=None, observation=Observation("say more"))
    assert shown(USER, malformed, Turn("user", "Format error."), Turn("user", "Again."), silent) == [
        ("user", "The issue."),
        ("assistant", "two blocks"),
        ("user", "Format error.\n\nAgain."),
        ("assistant", "no call at all"),
        ("user", "say more"),
    ]


def test_a_missing_observation_is_said_to_be_missing() -> None:
    assert shown(USER, agent("a", None), agent("b", None)) == [
        ("user", "The issue."),
        ("assistant", said("a")),
        ("user", "[no observation]"),
        ("assistant", said("b")),
        ("user", "[no observation]"),
    ]


def test_without_a_thought_the_action_stands_alone_and_what_cannot_be_written_stays_as_it_was() -> None:
    messages = shown(USER, agent("ls", thought=" "), agent("</parameter>"))
    assert messages[1][1] == "<function=bash>\n<parameter=command>ls</parameter>\n</function>"
    assert messages[3][1] == "raw </parameter>"


def test_a_demonstration_is_not_the_problem() -> None:
    demonstration = Turn("user", "Demonstration.", context_only=True)
    options = PromptOptions(last_pairs=None)
    assert shown(demonstration, replace(agent("demo"), context_only=True), USER, options=options) == [("user", "The issue.")]


def test_long_observations_keep_head_and_tail() -> None:
    assert truncate("abcdefghij", 10) == "abcdefghij"
    assert truncate("abcdefghij", 5) == "abc\n[... 5 characters left out ...]\nij"
    assert truncate("abcdefghij", 1) == "a\n[... 9 characters left out ...]\n"
    assert truncate("abcdefghij", 0) == "\n[... 10 characters left out ...]\n"
    options = PromptOptions(max_observation_chars=4)
    messages = shown(USER, agent("a", "abcdefgh"), Turn("user", "12345678"), options=options)
    assert messages[-1] == ("user", "ab\n[... 4 characters left out ...]\ngh\n\n12\n[... 4 characters left out ...]\n78")


def test_negative_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="last_pairs must not be negative, and is -1"):
        PromptOptions(last_pairs=-1)


def test_a_prompt_is_what_the_template_serves_with_one_begin_token(tokenizer: Any) -> None:
    ids = encode_prompt([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], tokenizer)
    expected = "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(ids) == expected
    assert ids == tokenizer(expected, add_special_tokens=False)["input_ids"]


def test_an_answer_ends_with_the_token_that_ends_the_turn(tokenizer: Any) -> None:
    ids = encode_answer("why", bash("cat <filename>"), tokenizer)
    assert tokenizer.decode(ids) == said("cat <filename>") + "<|im_end|>"
    # The text's own "<filename>" is no special token: decoding without them keeps it.
    assert tokenizer.decode(ids, skip_special_tokens=True) == said("cat <filename>")
    assert end_of_turn_id(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>") != tokenizer.eos_token_id


def test_an_invalid_target_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        encode_answer("", bash("ls"), tokenizer)
    with pytest.raises(ValueError, match="exactly one tool call, found 2"):
        encode_answer("why", Action(bash("ls").calls * 2), tokenizer)


def test_the_oldest_pairs_go_until_the_prompt_fits(tokenizer: Any) -> None:
    step = last_step(USER, agent("a"), agent("b"), agent("c"))

    def length(pairs: int) -> int:
        return len(encode_prompt(render_messages(step, TOOLS, PromptOptions(last_pairs=pairs)), tokenizer))

    def kept(limit: int) -> int:
        return len(encode_step(step, TOOLS, PromptOptions(max_prompt_tokens=limit), tokenizer))

    assert (kept(length(2)), kept(length(2) - 1), kept(length(0))) == (length(2), length(1), length(0))
    with pytest.raises(PromptTooLongError, match=rf"t@3: the prompt has {length(0)} tokens .* max_prompt_tokens = 5"):
        kept(5)


def test_under_a_budget_observations_shrink_oldest_first_before_pairs_go(tokenizer: Any) -> None:
    step = last_step(USER, Turn("user", "1" * 99), agent("a", "2" * 99), agent("b", "3" * 99), agent("c", "short"))
    options = PromptOptions(None, 1000, True, None, 10)
    possible = cuts(step, options)
    assert possible == [*(Cut(None, n) for n in range(5)), Cut(2, 4), Cut(1, 4), Cut(0, 4)]

    def shapes(cut: Cut) -> list[str]:
        """What becomes of each user's message after the system's: the characters that are left of each text."""
        contents = [m["content"] for m in render_messages(step, TOOLS, options, cut)[1:] if m["role"] == "user"]
        return ["+".join(str(content.count(digit)) for digit in "123" if digit in content) for content in contents]

    assert shapes(possible[0]) == ["99", "99", "99", ""]
    gone = "[... 89 characters left out ...]"
    assert gone in render_messages(step, TOOLS, options, possible[1])[1]["content"]
    assert [len(render_messages(step, TOOLS, options, cut)) for cut in possible] == [8, 8, 8, 8, 8, 6, 4, 2]
    lengths = [len(encode_prompt(render_messages(step, TOOLS, options, cut), tokenizer)) for cut in possible]
    assert lengths == sorted(lengths, reverse=True)
    for limit in range(lengths[-1], lengths[0] + 1):
        fitted = encode_step(step, TOOLS, replace(options, max_prompt_tokens=limit), tokenizer)
        assert len(fitted) == next(length for length in lengths if length <= limit)


def test_a_text_that_shortening_would_not_shorten_stays() -> None:
    step = last_step(USER, agent("a", "x" * 12))
    messages = render_messages(step, TOOLS, PromptOptions(None, 1000, True, None, 10), Cut(None, 1))
    assert messages[-1]["content"] == "x" * 12


def test_signatures_alone_name_every_tool_and_mark_optional_parameters() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "edit",
            "description": "Change a file.",
            "parameters": {"properties": {"path": {"type": "string"}, "line": {"type": "integer"}}, "required": ["path"]},
        },
    }
    step = Step(Trajectory("t", "t", "swe-agent", "atif", (Turn("user", "Fix it."),)), 0, 1)
    system = render_messages(step, [tool], PromptOptions(tool_descriptions=False))[0]["content"]
    assert system.endswith("Tools (? marks parameters that may be left out):\n- edit(path, line?)")
