"""SWE-agent 0's windowed tools, as an agent calls them inside a container: open, move, create and edit.

One file, standard library only, Python 3.6 and up. `windowed_0.py TOOL [ARGUMENT…]` answers on stdout, `edit` with its text on
stdin; `windowed_0.py call` reads the tool and its arguments as a JSON list from stdin. Which file is open and the line in the
middle of the window are kept in files, so that a copy of the container's files goes on where it was.

Invariant: a refused edit changes no file; the exit status is always 0, as that of the recorded shell functions. Wording,
windows and side effects are those of the recorded interface: the check looks at the whole file, also at what an edit did not
touch; an edited file ends with a line end; `create` writes an empty line.
"""
# ruff: noqa: UP006, UP035, UP045
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

STATE = Path(os.environ.get("SWE_SRL_STATE", "/var/tmp/swe-srl")) / "windowed"
"""Where the open file and the window are kept: outside any repository, in a place that snapshots of the container include."""
LINT = Path(__file__).with_name("lint.py")
AROUND = 10
"""Lines shown around a refused edit, half of them above."""

RULE = "-" * 49
NOT_OPEN = "No file open. Use the open command first."
EDITED = (
    "File updated. Please review the changes and make sure they are correct (correct indentation, no duplicate lines, etc). "
    "Edit the file again if necessary."
)
REJECTED = (
    "Your proposed edit has introduced new syntax error(s). Please understand the fixes and retry your edit commmand.\n\n"
    "ERRORS:\n{errors}\n\nThis is how your edit would have looked if applied\n{rule}\n{edited}\n{rule}\n\n"
    "This is the original code before your edit\n{rule}\n{original}\n{rule}\n"
    "Your changes have NOT been applied. Please fix your edit command and try again.\n"
    "You either need to 1) Specify the correct start/end line arguments or 2) Correct your edit code.\n"
    "DO NOT re-run the same failed edit command. Running it again will lead to the same error."
)


class RefusedError(Exception):
    """The call was not carried out; the message is for the agent."""


def size() -> int:
    """Lines that the window shows."""
    return int(os.environ.get("WINDOW", "100"))


def remembered(name: str) -> str:
    """What was kept under a name, "" for nothing."""
    try:
        return (STATE / name).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def remember(name: str, value: str) -> None:
    """Keep a value for later calls."""
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / name).write_bytes(value.encode("utf-8", "surrogateescape"))


def current(message: str = NOT_OPEN) -> str:
    """The path of the open file. Raises RefusedError where there is none."""
    path = remembered("file")
    if not path:
        raise RefusedError(message)
    return path


def read(path: str) -> List[str]:
    """The lines of a file; only LF ends one."""
    with open(path, "rb") as file:
        lines = file.read().decode("utf-8", "surrogateescape").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def constrained(middle: int, total: int, window: int) -> int:
    """The line in the middle of the window, where the window is filled."""
    return max(min(middle, total - window // 2), window // 2)


def render(path: str, middle: int, window: int) -> str:
    """The window as the agent sees it."""
    lines = read(path)
    middle = constrained(middle, len(lines), window)
    above = math.floor(max(0, middle - window / 2))
    below = math.floor(max(0, len(lines) - middle - window / 2) + 0.5)
    rows = [f"[File: {path} ({len(lines)} lines total)]"]
    if above:
        rows.append(f"({above} more lines above)")
    shown = [f"{n}:{line}" for n, line in enumerate(lines, 1)][: math.floor(max(middle, 0) + window / 2)]
    rows += shown[-window:]
    if below:
        rows.append(f"({below} more lines below)")
    return "\n".join(rows)


def show(path: str, middle: int) -> str:
    """Move the window and show it."""
    remember("file", path)
    remember("line", str(constrained(middle, len(read(path)), size())))
    return render(path, middle, size())


def open_file(arguments: List[str]) -> str:
    """Open a file."""
    if not arguments or not arguments[0]:
        raise RefusedError("Usage: open <file>")
    path, middle, warning = arguments[0], size() // 2, ""
    if len(arguments) > 1 and arguments[1]:
        usage = "Usage: open <file> [<line_number>]"
        line = number(arguments[1])
        if line is None:
            raise RefusedError(f"{usage}\nError: <line_number> must be a number")
        total = len(read(path)) if os.path.isfile(path) else line
        middle = below_top(line)
        if line > total:
            warning, middle = f"is greater than the number of lines in the file ({total})", total
        elif line < 1:
            warning, middle = "is less than 1", 1
        if warning:
            warning = f"Warning: <line_number> ({arguments[1]}) {warning}\nWarning: Setting <line_number> to {middle}\n"
    if os.path.isdir(path):
        raise RefusedError(
            f"{warning}Error: {path} is a directory. You can only open files. Use cd or ls to navigate directories."
        )
    if not os.path.isfile(path):
        raise RefusedError(f"{warning}File {path} not found")
    return warning + show(os.path.realpath(path), middle)


def below_top(line: int) -> int:
    """The middle of the window that shows a line below one sixth of it."""
    return max(1, math.floor(line + size() / 2 - size() // 6))


def number(text: str) -> Optional[int]:
    """The number that an argument writes in digits."""
    return int(text) if re.fullmatch("[0-9]+", text) else None


def goto(arguments: List[str]) -> str:
    """Move the window to a line."""
    if len(arguments) > 1:
        raise RefusedError("goto allows only one line number at a time.")
    path = current()
    if not arguments or not arguments[0]:
        raise RefusedError("Usage: goto <line>")
    line = number(arguments[0])
    if line is None:
        raise RefusedError("Usage: goto <line>\nError: <line> must be a number")
    total = len(read(path))
    if line > total:
        raise RefusedError(f"Error: <line> must be less than or equal to {total}")
    return show(path, below_top(line))


def scroll(down: bool) -> str:
    """Move the window by its size, less the overlap."""
    path, move = current(), size() - int(os.environ.get("OVERLAP", "0"))
    return show(path, int(remembered("line")) + (move if down else -move))


def create(arguments: List[str]) -> str:
    """Write a new file of one empty line and open it."""
    if not arguments or not arguments[0]:
        raise RefusedError("Usage: create <filename>")
    if os.path.exists(arguments[0]):
        try:
            shown = open_file(arguments[:1])
        except RefusedError as refused:
            shown = str(refused)
        raise RefusedError(f"Error: File '{arguments[0]}' already exists.\n{shown}")
    Path(arguments[0]).write_bytes(b"\n")
    return open_file(arguments[:1])


def edit(arguments: List[str], text: str) -> str:
    """Replace a range of lines by the lines of a text."""
    path = current("No file open. Use the `open` command first.")
    usage = "Usage: edit <start_line>:<end_line>"
    words = (arguments[0] if arguments else "").split(":")
    start, end = words[0], words[1] if len(words) > 1 else ""
    if not start or not end:
        raise RefusedError(usage)
    first, last = number(start), number(end)
    if first is None or last is None:
        raise RefusedError("{}\nError: {} must be a number".format(usage, "start_line" if first is None else "end_line"))
    first -= 1
    new = text.split("\n")
    new = new[:-1] if new[-1] == "" else new
    with open(path, "rb") as file:
        original = file.read()
    lines = read(path)
    write(path, ("\n".join(lines[: max(first, 0)] + new + lines[last:]) + "\n").encode("utf-8", "surrogateescape"))
    problems = lint(path)
    if not problems:
        return show(path, first) + "\n" + EDITED
    edited = render(path, len(new) // 2 + first, len(new) + AROUND)
    write(path, original)
    before = render(path, (last - first + 1) // 2 + first, last - first + AROUND)
    errors = "\n".join("- " + problem for problem in problems)
    raise RefusedError(REJECTED.format(errors=errors, rule=RULE, edited=edited, original=before))


def write(path: str, content: bytes) -> None:
    """Put something else in a file."""
    with open(path, "wb") as file:
        file.write(content)


def lint(path: str) -> List[str]:
    """What the check finds in a Python file."""
    if not path.endswith(".py"):
        return []
    # Not `capture_output`: Python 3.6 does not know it.
    done = subprocess.run([sys.executable, "-I", str(LINT), path], stdout=subprocess.PIPE, check=False)
    return [row.split(":", 2)[2].strip() for row in done.stdout.decode("utf-8", "replace").splitlines()]


def run(tool: str, arguments: List[str], text: Optional[str] = None) -> str:
    """Carry out one call and return what the agent reads. text: what `edit` puts in; from stdin where it is not given."""
    if tool == "open":
        return open_file(arguments)
    if tool == "goto":
        return goto(arguments)
    if tool in ("scroll_up", "scroll_down"):
        return scroll(tool == "scroll_down")
    if tool == "create":
        return create(arguments)
    if tool == "edit":
        return edit(arguments[:1], sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if text is None else text)
    raise RefusedError(f"windowed: no tool {tool}")


def main() -> int:
    """Read a call, answer it."""
    tool, arguments, text = sys.argv[1], sys.argv[2:], None
    if tool == "call":
        tool, *arguments = json.loads(sys.stdin.buffer.read().decode("utf-8"))
        text = arguments[1] if len(arguments) > 1 else ""
    try:
        answer = run(tool, arguments, text)
    except RefusedError as refused:
        answer = str(refused)
    except (OSError, ValueError) as error:
        answer = f"Error: {error}"
    sys.stdout.buffer.write((answer + "\n").encode("utf-8", "surrogateescape"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
