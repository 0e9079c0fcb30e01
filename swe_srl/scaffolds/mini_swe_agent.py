"""The interface of mini-swe-agent 1: one bash block a turn, a fresh `bash -c` per command, tagged observations.

Invariant: `parse_observation(observe(call, result).text)` gives back the output and return code that `observe` reported, so a
recorded and a live observation are compared in one form. The texts are those of mini-swe-agent 1.15's SWE-bench configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from swe_srl.scaffolds.base import Action, CommandResult, Observation, ToolCall, ToolFile

SUBMIT_MARKERS = ("COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "MINI_SWE_AGENT_FINAL_OUTPUT")
FORMAT_ERROR = "Please always provide EXACTLY ONE action in triple backticks"
LIMIT = 10_000
"""Characters from which on an output is shown as its two ends."""
SHOWN = LIMIT // 2
"""Characters shown at each end of a long output."""

_BLOCK = re.compile(r"```bash\s*\n(.*?)\n```", re.DOTALL)
_WARNING = """<warning>
The output of your last command was too long.
Please try a different command that produces less output.
If you're looking at a file you can try use head, tail or sed to view a smaller number of lines selectively.
If you're using grep or find and it produced too much output, you can use a more selective search pattern.
If you really need to see something from the full command's output, you can redirect output to a file and then search in \
that file.
</warning>"""
_SHORT = re.compile(r"<returncode>(-?\d+)</returncode>\n<output>\n(.*)</output>", re.DOTALL)
# The two ends are counted, not searched for their closing tags: an output may hold those tags itself.
_LONG = re.compile(
    rf"<returncode>(-?\d+)</returncode>\n{re.escape(_WARNING)}<output_head>\n(.{{{SHOWN}}})\n</output_head>\n"
    rf"<elided_chars>\n(\d+) characters elided\n</elided_chars>\n<output_tail>\n(.{{{SHOWN}}})\n</output_tail>",
    re.DOTALL,
)
_TIMEOUT = re.compile(
    r"The last command <command>(?:.*?)</command> timed out and has been killed\.\nThe output of the command was:\n"
    r" <output>\n(.*)\n</output>\nPlease try another command and make sure to avoid those requiring interactive input\.",
    re.DOTALL,
)
TOOLS: Sequence[Mapping[str, Any]] = (
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run a bash command. Each command starts in the working directory, in a new shell.",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string", "description": "The command to run."}},
                "required": ["command"],
            },
        },
    },
)
ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PAGER": "cat", "MANPAGER": "cat", "LESS": "-R", "PIP_PROGRESS_BAR": "off", "TQDM_DISABLE": "1"}
)


class MiniSweAgent:
    """mini-swe-agent 1."""

    name: str = "mini-swe-agent"
    tools: Sequence[Mapping[str, Any]] = TOOLS
    persistent_shell: bool = False
    environment: Mapping[str, str] = ENVIRONMENT
    timeout_seconds: float = 60.0
    tool_files: Sequence[ToolFile] = ()

    def command(self, call: ToolCall) -> str:
        """The command itself. Raises ValueError for another tool or other arguments than one text `command`."""
        return bash_command(call)

    def observe(self, call: ToolCall, result: CommandResult) -> Observation:
        """What the agent sees for a result; `extra` says `timed_out`, `submitted` or the number of `elided_chars`.

        Raises ValueError for a call this scaffold does not have.
        """
        command = self.command(call)
        if result.returncode is None:
            text = (
                f"The last command <command>{command}</command> timed out and has been killed.\n"
                f"The output of the command was:\n <output>\n{result.output}\n</output>\n"
                "Please try another command and make sure to avoid those requiring interactive input."
            )
            return Observation(text, result.output, None, {"timed_out": True})
        submitted = submission(output := text_mode(result.output))
        if submitted is not None:
            return Observation(submitted, submitted, result.returncode, {"submitted": True})
        return shown(output, result.returncode, result.dropped_bytes)

    def parse_observation(self, text: str) -> Observation:
        """Read back a recorded observation; `extra` says `timed_out`, `format_error` or the number of `elided_chars`.

        A text of none of the known forms (a submission is one) comes back with output and return code None.
        """
        if seen := read_shown(text):
            return seen
        if match := _TIMEOUT.fullmatch(text):
            return Observation(text, match[1], None, {"timed_out": True})
        return Observation(text, extra={"format_error": True} if text.startswith(FORMAT_ERROR) else {})

    def parse_action(self, text: str) -> Action:
        """The one bash block of an answer; an action with an error when there is none or more than one."""
        blocks = _BLOCK.findall(text)
        if len(blocks) != 1:
            return Action(error=f"found {len(blocks)} bash blocks")
        return Action((ToolCall("bash", {"command": blocks[0].strip()}),))

    def thought(self, text: str) -> str:
        """The prose before the bash block; the whole answer when it has not exactly one block."""
        matches = list(_BLOCK.finditer(text))
        return (text[: matches[0].start()] if len(matches) == 1 else text).strip()

    def is_submit(self, call: ToolCall) -> bool:
        """True when the command prints the submit marker by `echo` as a command of its own.

        The run really ends only when the marker comes out first: then `observe` says `submitted`.
        """
        return echoes(SUBMIT_MARKERS, call)


def bash_command(call: ToolCall) -> str:
    """The command of a `bash` call. Raises ValueError for another tool or other arguments than one text `command`."""
    if call.name != "bash":
        raise ValueError(f"mini-swe-agent has one tool, bash; found {call.name!r}")
    command = call.arguments.get("command")
    if not isinstance(command, str) or len(call.arguments) != 1:
        raise ValueError(f"bash takes one text argument, command; found {dict(call.arguments)!r}")
    return command


def echoes(markers: Sequence[str], call: ToolCall) -> bool:
    """True when the call's command prints one of the markers by an `echo` that is a command of its own."""
    command = call.arguments.get("command")
    echo = rf"(?:^|[\n;&])\s*echo\s+([\"']?)(?:{'|'.join(markers)})\1\s*(?:$|[\n;&])"
    return call.name == "bash" and isinstance(command, str) and bool(re.search(echo, command))


def text_mode(output: str) -> str:
    """A finished command's output as mini-swe-agent reads it, with universal newlines; a killed one's it reads as it is."""
    return output.replace("\r\n", "\n").replace("\r", "\n")


def submission(output: str, markers: Sequence[str] = SUBMIT_MARKERS) -> str | None:
    """What follows the submit marker when it is the first line of `output`, else None."""
    lines = output.lstrip().splitlines(keepends=True)
    return "".join(lines[1:]) if lines and lines[0].strip() in markers else None


def shown(output: str, returncode: int, dropped: int = 0) -> Observation:
    """A finished command's observation: its whole output, or from `LIMIT` characters on its two ends.

    dropped: bytes of the output that were not kept; they count as elided.
    """
    head = f"<returncode>{returncode}</returncode>\n"
    if len(output) < LIMIT:
        return Observation(f"{head}<output>\n{output}</output>", output, returncode)
    elided = len(output) + dropped - LIMIT
    text = (
        f"{head}{_WARNING}<output_head>\n{output[:SHOWN]}\n</output_head>\n"
        f"<elided_chars>\n{elided} characters elided\n</elided_chars>\n<output_tail>\n{output[-SHOWN:]}\n</output_tail>"
    )
    return _elided(text, output[:SHOWN], elided, output[-SHOWN:], returncode)


def read_shown(text: str) -> Observation | None:
    """What `shown` made the text from; None for any other text."""
    if match := _LONG.fullmatch(text):
        return _elided(text, match[2], int(match[3]), match[4], int(match[1]))
    if match := _SHORT.fullmatch(text):
        return Observation(text, match[2], int(match[1]))
    return None


def _elided(text: str, head: str, elided: int, tail: str, returncode: int) -> Observation:
    output = f"{head}\n[{elided} characters elided]\n{tail}"
    return Observation(text, output, returncode, {"elided_chars": elided})
