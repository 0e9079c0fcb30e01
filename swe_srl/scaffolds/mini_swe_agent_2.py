"""The interface of mini-swe-agent 2: the tool `bash`, a fresh `bash -c` per command, tagged observations.

Invariant: `parse_observation(observe(call, result).text)` gives back the observation that `observe` made. The texts are
those of mini-swe-agent 2.2 with its SWE-bench configuration: as in version 1, but a command killed at its time-out has return
code -1 and an `<exception>`, only a successful command submits, and there is one marker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall, ToolFile
from swe_srl.scaffolds.mini_swe_agent import (
    ENVIRONMENT,
    SUBMIT_MARKERS,
    TOOLS,
    bash_command,
    echoes,
    read_shown,
    shown,
    submission,
    text_mode,
)

FORMAT_ERROR = "Tool call error"
_MARKERS = SUBMIT_MARKERS[:1]
_KILLED = -1
"""The return code that an agent sees of a command that was killed at its time-out."""
# Python quotes the command in it, so that a time-out's reason is one line whatever the command holds.
_EXCEPTION = re.compile(r"<exception>(.*?)</exception>\n(?=<returncode>)", re.DOTALL)
_TIMED_OUT = re.compile(r" timed out after [\d.]+ seconds\Z")


class MiniSweAgent2:
    """mini-swe-agent 2."""

    name: str = "mini-swe-agent-2"
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
            words = ["bash", "-c", command]
            reason = f"Command '{words}' timed out after {round(result.seconds) or self.timeout_seconds:.0f} seconds"
            return _with_exception(
                f"<exception>An error occurred while executing the command: {reason}</exception>\n",
                shown(result.output, _KILLED, result.dropped_bytes),
                {"timed_out": True},
            )
        output = text_mode(result.output)
        submitted = submission(output, _MARKERS) if result.returncode == 0 else None
        if submitted is not None:
            return Observation(submitted, submitted, result.returncode, {"submitted": True})
        return shown(output, result.returncode, result.dropped_bytes)

    def parse_observation(self, text: str) -> Observation:
        """Read back a recorded observation; `extra` says `timed_out`, `format_error` or the number of `elided_chars`.

        A text of none of the known forms (a submission is one) comes back with output and return code None.
        """
        if text.startswith(FORMAT_ERROR):
            return Observation(text, extra={"format_error": True})
        exception = _EXCEPTION.match(text)
        seen = read_shown(text[exception.end() :] if exception else text)
        if seen is None:
            return Observation(text)
        if exception is None:
            return seen
        return _with_exception(exception[0], seen, {"timed_out": True} if _TIMED_OUT.search(exception[1]) else {})

    def is_submit(self, call: ToolCall) -> bool:
        """True when the command prints the submit marker by `echo` as a command of its own.

        The run really ends only when it succeeds and the marker comes out first: then `observe` says `submitted`.
        """
        return echoes(_MARKERS, call)


def _with_exception(exception: str, seen: Observation, extra: Mapping[str, Any]) -> Observation:
    return replace(seen, text=exception + seen.text, extra={**seen.extra, **extra})
