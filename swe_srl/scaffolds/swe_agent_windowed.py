"""SWE-agent's windowed interface: one shell that stays alive, a file viewer and editor of 100 lines, search tools, `submit`.

Invariant: `parse_observation(observe(call, result).text)` gives back the same text and output.

Three ways in which `edit` works, each a scaffold of its own: `swe-agent-windowed` replaces a range of lines,
`swe-agent-windowed-replace` replaces a text in the window and has `insert`, `swe-agent-windowed-replace-2024` is the latter as
it was before version 1.0. `swe-agent-windowed-0` has the tools of SWE-agent 0: they print full paths, keep the window's middle
instead of its top, and check the whole file after an edit. All show the open file and the directory below each observation;
where a command ends the shell or is killed at its time-out these are not known and the two lines are missing.
An edit of a Python file that the check in `tools/lint.py` finds fault with is taken back.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall, ToolFile
from swe_srl.scaffolds.definitions import Definition, check, integer, string, tool
from swe_srl.scaffolds.swe_agent import BASH, ENVIRONMENT, NO_OUTPUT, SUBMIT, SUBMIT_FILE, TERMINAL_CODES, TIMED_OUT

WAYS = ("0", "lines", "replace", "replace-2024")
_NAME = "swe-agent-windowed"
FOLDER = "/usr/local/lib/swe-srl"
_WINDOWED = ("open", "goto", "scroll_up", "scroll_down", "create", "edit", "insert")
_SEARCH = ("find_file", "search_dir", "search_file")
_FOOTER = re.compile(r"\n\(Open file: ([^\n]*)\)\n\(Current directory: ([^\n]*)\)\nbash-\$\Z")
_TYPED_EDIT = re.compile(r"edit (\d+):(\d+)\n((?:.*\n)?)end_of_edit\s*", re.DOTALL)
# Words that the shell takes as they are, or quoted without anything for it to expand.
_WORD = r"""(?:[\w./:,@%+=-]+|'[^'\n]*'|"[^"$`\\!\n]*")+"""
_PLAIN = re.compile(rf"{_WORD}(?: +{_WORD})*")
# What `_swe_srl_state` prints after a command: the open file and the directory between record separators.
_STATE = re.compile("\x1e([^\x1e]*)\x1e([^\x1e]*)\x1e\\Z")

LAUNCHER = f"""#!/bin/sh
# An agent may change PATH, PYTHONPATH or the environment's Python: the tools run on the system's interpreter, isolated.
for python in /usr/bin/python3 /usr/local/bin/python3 "$(command -v python3)"; do
    tool={FOLDER}/$1
    [ -x "$python" ] && shift && exec "$python" -I "$tool" "$@"
done
echo "$1: no python3 found" >&2
exit 127
"""
_FUNCTIONS = f"""# Sourced before each command with the way in which `edit` works: the tools as shell functions.
_swe_srl_way=$1
_swe_srl_tool() {{
    local tool=$1
    shift
    case "$tool:$_swe_srl_way:$1" in
        search:0:*) {FOLDER}/run search.py 0 "$@" ;;
        search:*) {FOLDER}/run search.py 1 "$@" ;;
        windowed:0:*) {FOLDER}/run windowed_0.py "$@" ;;
        windowed:*) {FOLDER}/run windowed.py "$_swe_srl_way" "$@" ;;
    esac
}}
for _swe_srl_name in {" ".join(_WINDOWED)}; do
    eval "$_swe_srl_name() {{ _swe_srl_tool windowed $_swe_srl_name \\"\\$@\\"; }}"
done
for _swe_srl_name in {" ".join(_SEARCH)}; do
    eval "$_swe_srl_name() {{ _swe_srl_tool search $_swe_srl_name \\"\\$@\\"; }}"
done
unset _swe_srl_name
# What comes from a terminal stands in columns.
if [ "$1" != 0 ]; then
    ls() {{ if [ /proc/self/fd/1 -ef "/proc/$$/fd/1" ]; then command ls -C "$@"; else command ls "$@"; fi; }}
fi
_swe_srl_state() {{
    local code=$? file= kept=${{SWE_SRL_STATE:-/var/tmp/swe-srl}}/windowed/file
    [ -f "$kept" ] && file=$(cat "$kept")
    printf '\\036%s\\036%s\\036' "${{file:-n/a}}" "$PWD"
    return $code
}}
"""

_OPEN = tool(
    "open",
    "Open a file in the viewer and show the lines around a line.",
    {"path": string("The file."), "line_number": integer("The line to show; the first where it is left out.")},
    required=["path"],
)
_GOTO = tool(
    "goto",
    "Show the lines around a line of the open file.",
    {"line_number": integer("The line to show.")},
    required=["line_number"],
)
_SCROLL = (tool("scroll_up", "Show the lines above.", {}), tool("scroll_down", "Show the lines below.", {}))
_CREATE = tool(
    "create", "Create a file of one empty line and open it.", {"filename": string("The file.")}, required=["filename"]
)
_FIND = (
    tool(
        "find_file",
        "Find all files of a name or shell pattern.",
        {"file_name": string("The name or pattern."), "dir": string("Where to look; the current directory otherwise.")},
        required=["file_name"],
    ),
    tool(
        "search_dir",
        "Count the matching lines of every file in a directory.",
        {"search_term": string("The text."), "dir": string("Where to look; the current directory otherwise.")},
        required=["search_term"],
    ),
    tool(
        "search_file",
        "Show the matching lines of a file.",
        {"search_term": string("The text."), "file": string("Where to look; the open file otherwise.")},
        required=["search_term"],
    ),
)
_EDIT_LINES = tool(
    "edit",
    "Replace lines of the open file. An edit after which a Python file has new errors is not applied.",
    {
        "start_line": integer("The first line to replace."),
        "end_line": integer("The last line to replace."),
        "replacement_text": string("The lines to put there, with their indentation."),
    },
    required=["start_line", "end_line", "replacement_text"],
)
_EDIT_TEXT = (
    tool(
        "edit",
        "Replace a text that occurs once in the lines shown of the open file. An edit after which a Python file has new errors "
        "is not applied.",
        {
            "search": string("The text to replace, exactly as in the file."),
            "replace": string("The text to put in its place."),
            "replace-all": {
                "type": "boolean",
                "description": "Replace every occurrence in the whole file; as in the recorded interface, any value does.",
            },
        },
        required=["search", "replace"],
    ),
    tool(
        "insert",
        "Add lines to the open file.",
        {"text": string("The lines to add."), "line": integer("The line after which to add; the end of the file otherwise.")},
        required=["text"],
    ),
)


class SweAgentWindowed:
    """SWE-agent with windowed tools; `way` is one of `WAYS`."""

    persistent_shell = True
    timeout_seconds = 30.0

    def __init__(self, way: str, workdir: str = "/testbed") -> None:
        self.name = _NAME if way == "lines" else f"{_NAME}-{way}"
        self.workdir = workdir
        self.environment: Mapping[str, str] = {**ENVIRONMENT, "WINDOW": "100", "OVERLAP": "2"}
        edit = (_EDIT_LINES,) if way in ("0", "lines") else _EDIT_TEXT
        self.tools: Sequence[Definition] = (BASH, _OPEN, _GOTO, *_SCROLL, _CREATE, *_FIND, *edit, SUBMIT)
        self._way = way
        tools = resources.files("swe_srl.scaffolds.tools")
        self.tool_files: Sequence[ToolFile] = (
            *(
                ToolFile(f"{FOLDER}/{name}", tools.joinpath(name).read_bytes())
                for name in ("lint.py", "search.py", "windowed.py", "windowed_0.py")
            ),
            ToolFile(f"{FOLDER}/run", LAUNCHER.encode()),
            ToolFile(f"{FOLDER}/windowed.sh", _FUNCTIONS.encode()),
            SUBMIT_FILE,
        )

    def command(self, call: ToolCall) -> str:
        """The bash script that carries out one call. Raises ValueError for a tool or argument this scaffold does not have."""
        check(self.tools, call, self.name)
        return f". {FOLDER}/windowed.sh {self._way}; {self._script(call)}\n_swe_srl_state"

    def _script(self, call: ToolCall) -> str:
        if call.name == "bash":
            return f"eval {shlex.quote(str(call.arguments['command']))}"
        if call.name == "submit":
            return f"printf '\\n'; /usr/local/bin/submit {shlex.quote(self.workdir)}"
        # On stdin, because one word of a command line holds 128 KiB at most. ASCII JSON is a single line that begins with a
        # bracket, so no text in it can be taken for the line that ends the heredoc.
        words = json.dumps([call.name, *self._words(call)])
        program = "search" if call.name in _SEARCH else "windowed"
        return f"_swe_srl_tool {program} call <<'END_OF_CALL'\n{words}\nEND_OF_CALL"

    def _words(self, call: ToolCall) -> list[str]:
        """The arguments as a command line has them."""
        given = {name: str(value) for name, value in call.arguments.items() if value is not None}
        if "start_line" in given:
            return [f"{given['start_line']}:{given['end_line']}", given["replacement_text"]]
        schema = next(tool["function"]["parameters"] for tool in self.tools if tool["function"]["name"] == call.name)
        return [given[name] for name in schema["properties"] if name in given]

    def observe(self, call: ToolCall, result: CommandResult) -> Observation:
        """What the agent sees; `extra` has `open_file` and `working_dir` where they are known, and `submitted` for `submit`."""
        state = _STATE.search(result.output)
        output = TERMINAL_CODES.sub("", result.output[: state.start()] if state else result.output)
        # Version 1 takes the last line end for the prompt's, but not after a text of several lines or a submission.
        if self._way != "0" and not self.is_submit(call) and "start_line" not in call.arguments:
            output = output.removesuffix("\n")
        if result.timed_out:
            command = call.arguments["command"] if call.name == "bash" else call.name
            output = TIMED_OUT.format(command=command, seconds=int(result.seconds or self.timeout_seconds))
        output = output if output.strip() else ""
        extra: dict[str, Any] = {"open_file": state[1], "working_dir": state[2]} if state else {}
        footer = f"\n(Open file: {state[1]})\n(Current directory: {state[2]})\nbash-$" if state else ""
        if self.is_submit(call):
            extra["submitted"] = result.returncode == 0
        return Observation((output or NO_OUTPUT) + footer, output, result.returncode, extra)

    def parse_observation(self, text: str) -> Observation:
        """Read back an observation that was recorded with this scaffold."""
        footer = _FOOTER.search(text)
        body = text[: footer.start()] if footer else text
        extra = {"open_file": footer[1], "working_dir": footer[2]} if footer else {}
        return Observation(text, "" if body == NO_OUTPUT else body, extra=extra)

    def parse_command(self, text: str) -> ToolCall:
        """The call in a command as it is typed: a tool's where it is its name and arguments and no more, else `bash`."""
        edit = _TYPED_EDIT.fullmatch(text)
        if edit and self._way in ("0", "lines"):
            new = edit[3].removesuffix("\n")
            # An empty line is not the same as no line.
            new = edit[3] if edit[3].endswith("\n\n") or not new else new
            return ToolCall("edit", {"start_line": int(edit[1]), "end_line": int(edit[2]), "replacement_text": new})
        line = text.strip()
        words = shlex.split(line) if _PLAIN.fullmatch(line) else [""]
        schema = next((tool["function"] for tool in self.tools if tool["function"]["name"] == words[0]), None)
        if schema and words[0] not in ("bash", "edit", "insert"):
            properties, required = schema["parameters"]["properties"], schema["parameters"]["required"]
            given = dict(zip(properties, words[1:], strict=False))
            if len(required) <= len(words) - 1 <= len(properties):
                numbers = {name for name in given if properties[name]["type"] == "integer" and given[name].isdecimal()}
                return ToolCall(words[0], {name: int(word) if name in numbers else word for name, word in given.items()})
        return ToolCall("bash", {"command": text.removesuffix("\n")})

    def is_submit(self, call: ToolCall) -> bool:
        """True for `submit`, also where it is typed in the shell."""
        return call.name == "submit" or (call.name == "bash" and str(call.arguments.get("command")).strip() == "submit")
