"""SWE-agent 1's interface: one shell that stays alive, `bash`, `str_replace_editor` and `submit`.

Invariant: `parse_observation(observe(call, result).text)` gives back the same text and output.

The recordings come from a terminal and end lines with CRLF; ours do not, and observations are kept as they are: replay
normalises line ends. `submit` shows the diff of everything that `git add -A` stages; with `review`, as SWE-smith's runs were
configured, the first call shows it under a checklist and the second submits.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from swe_srl.scaffolds.base import CommandResult, Observation, ToolCall, ToolFile
from swe_srl.scaffolds.definitions import check, integer, string, tool

_OBSERVED = "OBSERVATION:\n"
NO_OUTPUT = "Your command ran successfully and did not produce any output."
_MAX_CHARACTERS = 100_000
_CLIPPED = (
    "Observation: {output}<response clipped><NOTE>Observations should not exceeded {limit} characters. {elided} characters "
    "were elided. Please try a different command that produces less output or use head/tail/grep/redirect the output to a "
    "file. Do not use interactive pagers.</NOTE>"
)
_CLIPPED_PATTERN = re.compile(
    r"Observation: (.*)<response clipped><NOTE>Observations should not exceeded [^<]*</NOTE>", re.DOTALL
)
TIMED_OUT = (
    "The command '{command}' was cancelled because it took more than {seconds} seconds. "
    "Please try a different command that completes more quickly."
)
TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])")

_REVIEW_BEGINS = "Thank you for your work on this issue."
_REVIEW = f"""{_REVIEW_BEGINS} Please carefully follow the steps below to help review your changes.

1. If you made any changes to your code after running the reproduction script, please run the reproduction script again.
  If the reproduction script is failing, please revisit your changes and make sure they are correct.
  If you have already removed your reproduction script, please ignore this step.
2. Remove your reproduction script (if you haven't done so already).
3. If you have modified any TEST files, please revert them to the state they had before you started fixing the issue.
  You can do this with `git checkout -- /path/to/test/file.py`. Use below <diff> to find the files you need to revert.
4. Run the submit command again to confirm.

Here is a list of all of your changes:
"""

# An agent may change PATH, PYTHONPATH or the environment's Python: the tools run on the system's interpreter, isolated.
_EDITOR_LAUNCHER = """#!/bin/sh
for python in /usr/bin/python3 /usr/local/bin/python3 "$(command -v python3)"; do
    [ -x "$python" ] && exec "$python" -I /usr/local/bin/str_replace_editor.py "$@"
done
echo "str_replace_editor: no python3 found" >&2
exit 127
"""
_SUBMIT = f"""#!/bin/sh
# Stage everything and show it. With a second argument `review`: under a checklist the first time, bare from then on.
root=$(git -C "${{1:-/testbed}}" rev-parse --show-toplevel 2>/dev/null || git rev-parse --show-toplevel) || exit 1
cd "$root" || exit 1
errors=$(git add -A 2>&1 >/dev/null) || {{ echo "$errors"; exit 1; }}
state=${{SWE_SRL_STATE:-/var/tmp/swe-srl}}
if [ "${{2:-}}" != review ] || [ -e "$state/reviewed" ]; then
    exec git --no-pager diff --cached
fi
mkdir -p "$state" && : >"$state/reviewed"
cat <<'END_OF_REVIEW'
{_REVIEW}
<diff>
END_OF_REVIEW
git --no-pager diff --cached
printf '\\n</diff>'
"""
SUBMIT_FILE = ToolFile("/usr/local/bin/submit", _SUBMIT.encode())


BASH = tool(
    "bash",
    "Run a command in a bash shell that stays alive: its directory and variables are kept from call to call.",
    {"command": string("The command to run.")},
    required=["command"],
)
STR_REPLACE_EDITOR = tool(
    "str_replace_editor",
    "View, create and edit files. `view` numbers the lines of a file, or lists a directory two levels deep; `create` "
    "writes a new file; `str_replace` replaces a text that occurs exactly once; `insert` adds lines after a line; "
    "`undo_edit` takes back the last edit of the file.",
    {
        "command": string("What to do.", enum=["view", "create", "str_replace", "insert", "undo_edit"]),
        "path": string("Absolute path of the file or directory."),
        "file_text": string("For `create`: the whole content of the file."),
        "old_str": string("For `str_replace`: the text to replace, exactly as in the file."),
        "new_str": string("For `str_replace`: the text to put in its place. For `insert`: the lines to add."),
        "insert_line": integer("For `insert`: the line after which to add; 0 is the top of the file."),
        "view_range": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "For `view` of a file: the first and last line to show; -1 as the last is the end of the file.",
        },
    },
    required=["command", "path"],
)
SUBMIT = tool("submit", "Submit your changes and end the work. Where it asks for a review, submit again after it.", {})
ENVIRONMENT: Mapping[str, str] = {
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PAGER": "cat",
    "MANPAGER": "cat",
    "LESS": "-R",
    "PIP_PROGRESS_BAR": "off",
    "TQDM_DISABLE": "1",
    "TERM": "dumb",
    "COLUMNS": "80",
    # On a terminal Python writes line by line; without this what it prints would come after its errors.
    "PYTHONUNBUFFERED": "1",
}


class SweAgent:
    """SWE-agent 1 with function calling; `swe-agent-review` is the one its SWE-smith runs were recorded with."""

    tools: Sequence[Mapping[str, Any]] = (BASH, STR_REPLACE_EDITOR, SUBMIT)
    persistent_shell = True
    environment = ENVIRONMENT
    timeout_seconds = 300.0

    def __init__(self, workdir: str = "/testbed", review: bool = False) -> None:
        self.name = "swe-agent-review" if review else "swe-agent"
        self.workdir = workdir
        self._review = review
        editor = resources.files("swe_srl.scaffolds.tools").joinpath("str_replace_editor.py").read_bytes()
        self.tool_files: Sequence[ToolFile] = (
            ToolFile("/usr/local/bin/str_replace_editor.py", editor),
            ToolFile("/usr/local/bin/str_replace_editor", _EDITOR_LAUNCHER.encode()),
            SUBMIT_FILE,
        )

    def command(self, call: ToolCall) -> str:
        """The bash script that carries out one call. Raises ValueError for a tool or argument this scaffold does not have."""
        check(self.tools, call, "swe-agent")
        if call.name == "bash":
            return str(call.arguments["command"])
        if call.name == "submit":
            return f"/usr/local/bin/submit {shlex.quote(self.workdir)}" + (" review" if self._review else "")
        # On stdin, because one word of a command line holds 128 KiB at most. ASCII JSON is a single line that begins with a
        # brace, so no text in it can be taken for the line that ends the heredoc.
        arguments = json.dumps(dict(call.arguments))
        return f"/usr/local/bin/str_replace_editor <<'END_OF_ARGUMENTS'\n{arguments}\nEND_OF_ARGUMENTS"

    def observe(self, call: ToolCall, result: CommandResult) -> Observation:
        """What the agent sees. For `submit`, `extra["submitted"]` tells whether it ended the run or asked for a review."""
        output = TERMINAL_CODES.sub("", result.output)
        if not self.is_submit(call):
            output = output.strip()
        if result.timed_out:
            command = call.arguments["command"] if call.name == "bash" else call.name
            output = TIMED_OUT.format(command=command, seconds=int(result.seconds or self.timeout_seconds))
        elided = len(output) - _MAX_CHARACTERS
        if not output.strip():
            output, text = "", NO_OUTPUT
        elif elided > 0:
            output = output[:_MAX_CHARACTERS]
            text = _CLIPPED.format(output=output, limit=_MAX_CHARACTERS, elided=elided)
        else:
            text = _OBSERVED + output
        submitted = result.returncode == 0 and not output.startswith(_REVIEW_BEGINS)
        extra = {"submitted": submitted} if self.is_submit(call) else {}
        return Observation(text, output, result.returncode, extra)

    def parse_observation(self, text: str) -> Observation:
        """Read back an observation that was recorded with this scaffold."""
        if text == NO_OUTPUT:
            return Observation(text, "")
        if text.startswith(_OBSERVED):
            return Observation(text, text[len(_OBSERVED) :])
        clipped = _CLIPPED_PATTERN.fullmatch(text)
        return Observation(text, clipped.group(1) if clipped else None)

    def is_submit(self, call: ToolCall) -> bool:
        """True for `submit`, also where it is typed in the shell. With `review` the first only asks for one: see `observe`."""
        return call.name == "submit" or (call.name == "bash" and str(call.arguments.get("command")).strip() == "submit")
