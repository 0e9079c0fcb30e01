"""OpenHands' interface with function calling: `execute_bash` in one shell that stays alive, an editor, `think`, `finish`.

Invariant: `parse_observation(observe(call, result).text)` gives back the same text, output and return code.

The lines below a command's output (exit code, directory, interpreter) are those of OpenHands 0.3x. `execute_ipython_cell` and
input for a running command (`is_input`) are not there: such a call is refused by name. `finish` shows the diff of everything
that `git add -A` stages, which is what an evaluation takes from the run.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Any

from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall, ToolFile
from swe_srl.scaffolds.definitions import Definition, check, string, tool
from swe_srl.scaffolds.swe_agent import ENVIRONMENT, STR_REPLACE_EDITOR, SUBMIT_FILE, TERMINAL_CODES
from swe_srl.scaffolds.swe_agent_windowed import FOLDER, LAUNCHER

_THOUGHT = "Your thought has been logged."
_FOOTER = re.compile(
    r"\n\[The command completed with exit code (-?\d+)\.\](?:\n\[Current working directory: ([^\n]*)\])?"
    r"(?:\n\[Python interpreter: ([^\n]*)\])?\n\[Command finished with exit code \1\]\Z"
)
_TIMED_OUT = (
    "\n[The command timed out after {seconds} seconds. You may wait longer to see additional output by sending empty command "
    "'', send other commands to interact with the current process, or send keys to interrupt/kill the command.]"
)
_TIMED_OUT_PATTERN = re.compile(r"\n\[The command timed out after \d+ seconds\. You may wait longer [^\n]*\]\Z")
# Printed after a command: its directory and interpreter between record separators.
_STATE_SCRIPT = '{ _swe_srl_code=$?; printf \'\\036%s\\036%s\\036\' "$PWD" "$(command -v python)"; ( exit "$_swe_srl_code" ); }'
_STATE = re.compile("\x1e([^\x1e]*)\x1e([^\x1e]*)\x1e\\Z")

_TOOLS = (
    tool(
        "execute_bash",
        "Run a command in a bash shell that stays alive: its directory and variables are kept from call to call.",
        {
            "command": string("The command to run."),
            "is_input": string("Whether the command is input for a running program; only false.", enum=["true", "false"]),
            "timeout": {"type": "number", "description": "Wall-clock limit in seconds."},
        },
        required=["command"],
    ),
    tool("think", "Write down a thought. Changes nothing.", {"thought": string("The thought.")}, required=["thought"]),
    tool(
        "finish",
        "End the work.",
        {"message": string("What was done."), "task_completed": string("How far.", enum=["true", "false", "partial"])},
    ),
    STR_REPLACE_EDITOR,
)


class OpenHands:
    """OpenHands 0.3x with function calling."""

    name = "openhands"
    tools: Sequence[Definition] = _TOOLS
    persistent_shell = True
    environment = ENVIRONMENT
    timeout_seconds = 120.0

    def __init__(self, workdir: str = "/testbed") -> None:
        self.workdir = workdir
        editor = resources.files("swe_srl.scaffolds.tools").joinpath("openhands_editor.py").read_bytes()
        self.tool_files: Sequence[ToolFile] = (
            ToolFile(f"{FOLDER}/openhands_editor.py", editor),
            ToolFile(f"{FOLDER}/run", LAUNCHER.encode()),
            SUBMIT_FILE,
        )

    def command(self, call: ToolCall) -> str:
        """The bash script that carries out one call. Raises ValueError for a tool or argument this scaffold does not have."""
        check(self.tools, call, self.name)
        if call.name == "execute_bash":
            if str(call.arguments.get("is_input")).lower() == "true":
                raise ValueError("execute_bash: input for a running command (is_input) cannot be given")
            return f"eval {shlex.quote(str(call.arguments['command']))}\n{_STATE_SCRIPT}"
        if call.name == "think":
            return f"echo {shlex.quote(_THOUGHT)}"
        if call.name == "finish":
            return f"/usr/local/bin/submit {shlex.quote(self.workdir)}"
        arguments = json.dumps(dict(call.arguments))
        return f"{FOLDER}/run openhands_editor.py <<'END_OF_ARGUMENTS'\n{arguments}\nEND_OF_ARGUMENTS"

    def observe(self, call: ToolCall, result: CommandResult) -> Observation:
        """What the agent sees; `extra` has a command's `working_dir` and `py_interpreter_path`, for `finish` `submitted`."""
        state = _STATE.search(result.output)
        output = TERMINAL_CODES.sub("", result.output[: state.start()] if state else result.output)
        if call.name != "execute_bash":
            output = output.rstrip("\n") if call.name == "think" else output
            extra = {"submitted": result.returncode == 0} if call.name == "finish" else {}
            return Observation(output, output, None, extra)
        output = output.rstrip()
        if result.returncode is None:
            return Observation(output + _TIMED_OUT.format(seconds=int(result.seconds or self.timeout_seconds)), output, None)
        code = result.returncode
        rows = [f"[The command completed with exit code {code}.]"]
        rows += [f"[Current working directory: {state[1]}]"] if state else []
        rows += [f"[Python interpreter: {state[2]}]"] if state and state[2] else []
        rows += [f"[Command finished with exit code {code}]"]
        return Observation("\n".join([output, *rows]), output, code, _state(state))

    def parse_observation(self, text: str) -> Observation:
        """Read back an observation that was recorded with this scaffold."""
        footer = _FOOTER.search(text)
        if footer:
            known = footer if footer[2] is not None else None
            extra = {"working_dir": known[2], "py_interpreter_path": known[3] or ""} if known else {}
            return Observation(text, text[: footer.start()], int(footer[1]), extra)
        timed_out = _TIMED_OUT_PATTERN.search(text)
        return Observation(text, text[: timed_out.start()] if timed_out else text)

    def is_submit(self, call: ToolCall) -> bool:
        """True for `finish`."""
        return call.name == "finish"


def _state(state: re.Match[str] | None) -> dict[str, Any]:
    return {"working_dir": state[1], "py_interpreter_path": state[2]} if state else {}
