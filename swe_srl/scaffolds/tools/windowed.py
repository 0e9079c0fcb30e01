"""SWE-agent 1's windowed tools, as an agent calls them inside a container: open, move, create, edit and insert.

One file, standard library only, Python 3.6 and up. `windowed.py WAY TOOL [ARGUMENT…]` answers on stdout; `windowed.py WAY call`
reads the tool and its arguments as a JSON list from stdin. WAY says how `edit` works: `lines` replaces a range of lines,
`replace` replaces a text in the window, `replace-2024` is that tool before version 1.0 (other wording, other line shown first).
Which file is open and the first line shown are kept in files, so that a copy of the container's files goes on where it was.

Invariant: a refused call changes no file and exits with a status that is not 0. Wording, windows and side effects are those of
the recorded interface: an edit turns CRLF line ends into LF, and `create` writes an empty line.
"""
# ruff: noqa: UP006, UP035, UP045
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import List, Optional, Tuple

STATE = Path(os.environ.get("SWE_SRL_STATE", "/var/tmp/swe-srl")) / "windowed"
"""Where the open file and the window are kept: outside any repository, in a place that snapshots of the container include."""
LINT = Path(__file__).with_name("lint.py")
SHOWN_ABOVE = 6
"""The line asked for stands below one sixth of the window."""

RULE = "-" * 48
EDITED = """File updated. Please review the changes and make sure they are correct
(correct indentation, no duplicate lines, etc). Edit the file again if necessary."""
REPLACED = """{what}. Please review the changes and make sure they are correct:

1. The edited file is correctly indented
2. The edited file does not contain duplicate lines
3. The edit does not break existing functionality

Edit the file again if necessary."""
REPLACED_2024 = """{what}. Please review the changes and make sure they are correct
(correct indentation, no duplicate lines, etc). Edit the file again if necessary."""
REJECTED = (
    "Your proposed edit has introduced new syntax error(s).{then}Please read this error message carefully and then retry "
    "editing the file.\n\nERRORS:\n{errors}\nThis is how your edit would have looked if applied\n{rule}\n{edited}\n{rule}\n\n"
    "This is the original code before your edit\n{rule}\n{original}\n{rule}\n\n"
    "Your changes have NOT been applied. Please fix your edit command and try again.\n"
    "DO NOT re-run the same failed edit command. Running it again will lead to the same error.{end}"
)
NOT_APPLIED = "Your edit was not applied (file not modified): "
EDIT_USAGE = "Usage: edit <start_line>:<end_line>\n<replacement_text>\nend_of_edit"


class RefusedError(Exception):
    """The call was not carried out; the message is for the agent."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Window:
    """The open file and the part of it that is shown. Lines count from 0 in here, from 1 for the agent."""

    def __init__(self, path: Optional[str] = None) -> None:
        self.size, self.overlap = int(os.environ.get("WINDOW", "100")), int(os.environ.get("OVERLAP", "0"))
        shown = path or remembered("file")
        if not shown:
            raise RefusedError("No file open. Use the open command first.")
        self.path = Path(shown)
        if self.path.is_dir():
            raise RefusedError(
                f"Error: {self.path} is a directory. You can only open files. Use cd or ls to navigate directories."
            )
        if not self.path.exists():
            raise RefusedError(f"Error: File {self.path} not found")
        remember("file", os.path.realpath(shown))
        self.first = 0
        self.show_from(int(remembered("line") or 0))

    @property
    def text(self) -> str:
        """What is in the file, with LF line ends."""
        return self.path.read_text(encoding="utf-8", errors="surrogateescape")

    def write(self, text: str) -> None:
        """Put something else in the file."""
        self.path.write_bytes(text.encode("utf-8", "surrogateescape"))

    @property
    def total(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    @property
    def last(self) -> int:
        """The last line shown."""
        return min(self.first + self.size, self.total) - 1

    def show_from(self, line: float) -> None:
        """Move the window; the file's last lines fill it."""
        self.first = max(0, min(int(line), self.total - self.size))
        remember("line", str(self.first))

    def goto(self, line: int) -> None:
        """Move the window so that a line is in it."""
        self.show_from(line - self.size / SHOWN_ABOVE)

    def shown(self) -> str:
        """The text in the window, as an edit sees it."""
        return "\n".join(self.text.split("\n")[self.first : self.last + 1])

    def put(self, text: str, first: int, last: int) -> None:
        """Put a text in the place of some lines; none in the place of them where it is empty."""
        lines = self.text.split("\n")
        lines[first : last + 1] = text.split("\n") if text else []
        self.write("\n".join(lines))

    def render(self) -> str:
        """The window as the agent sees it."""
        rows = [f"[File: {self.path} ({self.total} lines total)]"]
        if self.first > 0:
            rows.append(f"({self.first} more lines above)")
        rows += [f"{n}:{line}" for n, line in enumerate(self.shown().split("\n"), self.first + 1) if n <= self.last + 1]
        if self.last < self.total - 1:
            rows.append(f"({self.total - self.last - 1} more lines below)")
        return "\n".join(rows)


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


def whole_number(text: str, usage: str, name: str) -> int:
    """The number that an argument writes."""
    try:
        return int(text)
    except ValueError:
        raise RefusedError(f"Usage: {usage}\nError: <{name}> must be a number") from None


def open_file(arguments: List[str]) -> str:
    """Open a file, or show again the one that is open."""
    if not arguments and not remembered("file"):
        raise RefusedError('Usage: open "<file>"')
    window, warning = Window(arguments[0] if arguments else None), ""
    if arguments:
        line = whole_number(arguments[1], 'open "<file>" [<line_number>]', "line_number") if len(arguments) > 1 else 1
        if line > window.total:
            warning, line = f"is greater than the number of lines in the file ({window.total})", window.total
        elif line < 1:
            warning, line = "is less than 1", 1
        if warning:
            warning = f"Warning: <line_number> ({arguments[1]}) {warning}\nWarning: Setting <line_number> to {line}\n"
        window.goto(line - 1)
    return warning + window.render()


def goto(arguments: List[str]) -> str:
    """Move the window to a line."""
    if len(arguments) > 1:
        raise RefusedError("goto allows only one line number at a time.")
    if not arguments:
        raise RefusedError("Usage: goto <line>")
    line, window = whole_number(arguments[0], "goto <line>", "line"), Window()
    if line > window.total:
        raise RefusedError(f"Error: <line> must be less than or equal to {window.total}")
    window.goto(line - 1)
    return window.render()


def scroll(down: bool) -> str:
    """Move the window by its size, less the overlap."""
    window = Window()
    move = window.size - window.overlap
    window.show_from(window.first + (move if down else -move))
    return window.render()


def create(arguments: List[str]) -> str:
    """Write a new file of one empty line and open it."""
    if not arguments:
        raise RefusedError("Usage: create <filename>")
    path = Path(arguments[0])
    if path.exists():
        raise RefusedError(f"Warning: File '{path}' already exists.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n")
    window = Window(arguments[0])
    window.show_from(0)
    return window.render()


def edit_lines(arguments: List[str]) -> str:
    """Replace a range of lines."""
    window = opened("No file opened. Use the `open` command first.")
    try:
        first, last = (int(number) - 1 for number in arguments[0].split(":"))
    except (ValueError, IndexError):
        raise RefusedError(EDIT_USAGE) from None
    text = arguments[1] if len(arguments) > 1 else from_stdin()
    text = text[:-1] if text.endswith("\n") else text
    before, original = lint(window.path), window.text
    window.put(text, first, last)
    guard(window, original, new_problems(window, before, (first + 1, last + 1), len(text.splitlines())), "{}\n", 1)
    window.goto(first)
    return EDITED + "\n" + window.render()


def edit_text(arguments: List[str], early: bool) -> str:
    """Replace the only occurrence of a text in the window, or every one in the file."""
    if len(arguments) not in (2, 3):
        raise RefusedError("usage: edit [-h] search replace [replace_all]", 2)
    search, new = arguments[:2]
    everywhere = bool(arguments[2:] and arguments[2])
    window = opened("No file opened. Either `open` or `create` a file first.")
    if not search:
        raise RefusedError("Search text must not be empty. Use insert to add new text.", 2)
    if search == new:
        raise RefusedError(
            "Your search and replace strings are the same. No changes were made. Please modify your search or replace strings.",
            2,
        )
    original, shown = window.text, window.shown()
    count = (original if everywhere else shown).count(search)
    if count == 0:
        raise RefusedError(not_found(search, original), 3)
    if count > 1 and not everywhere:
        raise RefusedError(
            f"{NOT_APPLIED}Found more than one occurrence of {search!r} in the currently displayed lines.\n"
            "Please make your search string more specific (for example, by including more lines of context).\n",
            4,
        )
    before, problems = lint(window.path), None
    if everywhere:
        line = original[: original.index(search)].count("\n") + 1
        window.write(original.replace(search, new))
    else:
        line = window.first + shown[: shown.index(search)].count("\n") + early
        window.put(shown.replace(search, new), window.first, window.last)
        lines = search.count("\n") + 1
        problems = new_problems(window, before, (line, line + lines - 1), new.count("\n") + 1)
    first = window.first
    window.goto(line)
    if problems is None:
        problems = [text for _, _, text in lint(window.path)]
    guard(window, original, problems, "\n{}" if early else "\n{}\n", 4, first, end="" if early else "\n")
    what = f"Replaced {count} occurrences" if everywhere else "Text replaced"
    return (REPLACED_2024 if early else REPLACED).format(what=what) + "\n" + window.render()


def not_found(search: str, text: str) -> str:
    """Why nothing was replaced, and where the text is outside the window."""
    found, start = [], text.find(search)
    while start != -1:
        found.append("- line {}".format(text[:start].count("\n") + 1))
        start = text.find(search, start + len(search))
    if not found:
        return (
            f"{NOT_APPLIED}Text {search!r} not found in displayed lines (or anywhere in the file).\n"
            "Please modify your search string. Did you forget to properly handle whitespace/indentation?\n"
            "You can also call `open` again to re-display the file with the correct context.\n"
        )
    places = "\n".join(found)
    return (
        f"{NOT_APPLIED}Text {search!r} not found in displayed lines.\n\n"
        f"However, we found the following occurrences of your search string in the file:\n\n{places}\n\n"
        "You can use the `goto` command to navigate to these locations before running the edit command again.\n"
    )


def insert(arguments: List[str]) -> str:
    """Add lines after a line, or at the end of the file."""
    if len(arguments) not in (1, 2):
        raise RefusedError("usage: insert [-h] text [line]", 2)
    window = opened("No file opened. Use the `create` or `open` command first.")
    text = arguments[0]
    if not text:
        return window.render()
    text = text[:-1] if text.endswith("\n") else text
    before, original, first = lint(window.path), window.text, window.first
    if len(arguments) == 1:
        line = window.total
        body = original[:-1] if original.endswith("\n") else original
        edited = body + "\n" + text if original else text
    else:
        line = max(0, whole_number(arguments[1], "insert <text> [<line>]", "line"))
        lines = original.split("\n")
        edited = "\n".join([*lines[:line], text, *lines[line:]])
    window.write(edited)
    window.goto(line)
    problems = new_problems(window, before, (line, line), text.count("\n") + 1)
    guard(window, original, problems, "\n{}\n", 4, first, then="\n", end="\n")
    return window.render()


def opened(message: str) -> Window:
    """The open file, or a refusal in the words of the tool."""
    if not remembered("file"):
        raise RefusedError(message)
    return Window()


def from_stdin() -> str:
    """The lines up to `end_of_edit`."""
    lines = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    return "\n".join(lines[: lines.index("end_of_edit")] if "end_of_edit" in lines else lines)


def lint(path: Path) -> List[Tuple[int, int, str]]:
    """Line, column and text of what the check finds in a Python file."""
    if path.suffix != ".py":
        return []
    # Not `capture_output`: Python 3.6 does not know it.
    done = subprocess.run([sys.executable, "-I", str(LINT), str(path)], stdout=subprocess.PIPE, check=False)
    rows = [row.split(":", 2) for row in done.stdout.decode("utf-8", "replace").splitlines()]
    return [(int(line), int(column), text.strip()) for line, column, text in rows]


def new_problems(window: Window, before: List[Tuple[int, int, str]], replaced: Tuple[int, int], count: int) -> List[str]:
    """What the check finds now and did not find before: what stood outside the edit is not the edit's fault."""
    first, last = replaced
    moved = count - (last - first + 1)
    known = [
        (line if line < first else line + moved, column, text) for line, column, text in before if not first <= line <= last
    ]
    return [text for line, column, text in lint(window.path) if (line, column, text) not in known]


def guard(
    window: Window,
    original: str,
    problems: List[str],
    layout: str,
    status: int,
    first: Optional[int] = None,
    then: str = " ",
    end: str = "",
) -> None:
    """Take the edit back and refuse it where it made the file worse.

    layout: the lines around the problems; first: the line to show first again; then, end: what stands after the first sentence
    and after the last.
    """
    if problems:
        edited = window.render()
        window.write(original)
        window.show_from(window.first if first is None else first)
        errors = layout.format("\n".join("- " + text for text in problems))
        message = REJECTED.format(then=then, errors=errors, rule=RULE, edited=edited, original=window.render(), end=end)
        raise RefusedError(message, status)


def run(way: str, tool: str, arguments: List[str]) -> str:
    """Carry out one call and return what the agent reads."""
    if tool == "open":
        return open_file(arguments)
    if tool == "goto":
        return goto(arguments)
    if tool in ("scroll_up", "scroll_down"):
        return scroll(tool == "scroll_down")
    if tool == "create":
        return create(arguments)
    if tool == "edit":
        return edit_lines(arguments) if way == "lines" else edit_text(arguments, way == "replace-2024")
    if tool == "insert":
        return insert(arguments)
    raise RefusedError(f"windowed: no tool {tool}", 2)


def main() -> int:
    """Read a call, answer it."""
    way, tool, arguments, status = sys.argv[1], sys.argv[2], sys.argv[3:], 0
    if tool == "call":
        tool, *arguments = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    try:
        answer = run(way, tool, arguments)
    except RefusedError as refused:
        answer, status = str(refused), refused.status
    except (OSError, ValueError) as error:
        answer, status = f"Error: {error}", 1
    sys.stdout.buffer.write((answer + "\n").encode("utf-8", "surrogateescape"))
    return status


if __name__ == "__main__":
    sys.exit(main())
