"""OpenHands' `str_replace_editor`, as an agent calls it inside a container: view, create, edit and undo.

One file, standard library only, Python 3.6 and up. The arguments are a JSON object on stdin, the answer goes to stdout.
Invariant: a refused call changes no file and exits with status 1. Wording and line numbers are those of the recorded interface:
a snippet after an edit has one empty line more than the file shows there, and tabs stay as they are.
"""
# ruff: noqa: UP006, UP035
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, List, Mapping

STATE = Path(os.environ.get("SWE_SRL_STATE", "/var/tmp/swe-srl")) / "openhands"
"""Where earlier contents are kept: outside any repository, and in a place that snapshots of the container include."""
COMMANDS = ("view", "create", "str_replace", "insert", "undo_edit")
CONTEXT_LINES = 4
MAX_CHARACTERS = 16000
CLIPPED = (
    "<response clipped><NOTE>Due to the max output limit, only part of this file has been shown to you. You should retry this "
    "tool after you have searched inside the file with `grep -n` in order to find the line numbers of what you are looking "
    "for.</NOTE>"
)


class RefusedError(Exception):
    """The call was not carried out; the message is for the agent."""


def invalid(name: str, value: Any, hint: str) -> RefusedError:
    """The refusal of an argument."""
    return RefusedError(f"Invalid `{name}` parameter: {value}. {hint}")


def required(arguments: Mapping[str, Any], name: str) -> Any:
    """The argument, which this command cannot do without."""
    if arguments.get(name) is None:
        raise RefusedError("Parameter `{}` is required for command: {}.".format(name, arguments["command"]))
    return arguments[name]


def from_text(value: Any) -> Any:
    """A number or list that came as text, as in an answer written in XML; anything else unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def run(arguments: Mapping[str, Any]) -> str:
    """Carry out one call and return what the agent reads."""
    command, path = arguments["command"], Path(arguments["path"])
    check_path(command, path)
    if command == "view":
        return view(path, from_text(arguments.get("view_range")))
    if command == "create":
        text = required(arguments, "file_text")
        write(path, text)
        keep(path, text)
        return f"File created successfully at: {path}"
    if command == "str_replace":
        old, new = required(arguments, "old_str"), arguments.get("new_str")
        if old == new:
            raise invalid("new_str", new, "No replacement was performed. `new_str` and `old_str` must be different.")
        return str_replace(path, old, new or "")
    if command == "insert":
        return insert(path, from_text(required(arguments, "insert_line")), required(arguments, "new_str"))
    if command == "undo_edit":
        return undo_edit(path)
    raise RefusedError(
        f"Unrecognized command {command}. The allowed commands for the oh_editor tool are: {', '.join(COMMANDS)}"
    )


def check_path(command: str, path: Path) -> None:
    """Refuse a path that the command cannot work on."""
    if not path.is_absolute():
        raise invalid("path", path, "The path should be an absolute path, starting with `/`.")
    if command == "create" and path.exists():
        raise invalid("path", path, f"File already exists at: {path}. Cannot overwrite files using command `create`.")
    if command != "create" and not path.exists():
        raise invalid("path", path, f"The path {path} does not exist. Please provide a valid path.")
    if command != "view" and path.is_dir():
        raise invalid("path", path, f"The path {path} is a directory and only the `view` command can be used on directories.")


def view(path: Path, view_range: Any) -> str:
    """The numbered lines of a file, or what a directory holds."""
    if path.is_dir():
        if view_range:
            raise invalid(
                "view_range", view_range, "The `view_range` parameter is not allowed when `path` points to a directory."
            )
        return listing(path)
    text = read(path)
    if not view_range:
        return numbered(text, str(path))
    lines = text.splitlines()
    if not isinstance(view_range, list) or len(view_range) != 2 or not all(isinstance(n, int) for n in view_range):
        raise invalid("view_range", view_range, "It should be a list of two integers.")
    first, last = view_range
    if not 1 <= first <= len(lines):
        hint = f"Its first element `{first}` should be within the range of lines of the file: {[1, len(lines)]}."
        raise invalid("view_range", view_range, hint)
    if last > len(lines):
        hint = f"Its second element `{last}` should be smaller than the number of lines in the file: `{len(lines)}`."
        raise invalid("view_range", view_range, hint)
    if last != -1 and last < first:
        hint = f"Its second element `{last}` should be greater than or equal to the first element `{first}`."
        raise invalid("view_range", view_range, hint)
    return numbered("\n".join(lines[first - 1 : len(lines) if last == -1 else last]), str(path), first)


def listing(folder: Path) -> str:
    """What lies in a directory, two levels deep, and how much is hidden."""
    paths = [folder]
    for child in visible(folder):
        paths += [child] + (visible(child) if child.is_dir() else [])
    rows = "\n".join(f"{path}/" if path.is_dir() else str(path) for path in sorted(paths, key=str))
    answer = f"Here's the files and directories up to 2 levels deep in {folder}, excluding hidden items:\n{rows}"
    hidden = sum(child.name.startswith(".") for child in folder.iterdir())
    if hidden:
        answer += (
            f"\n\n{hidden} hidden files/directories in this directory are excluded. You can use 'ls -la {folder}' to see them."
        )
    return answer


def visible(folder: Path) -> List[Path]:
    """What lies in a directory and is not hidden."""
    return [child for child in folder.iterdir() if not child.name.startswith(".")]


def str_replace(path: Path, old: str, new: str) -> str:
    """Replace the only occurrence of a text."""
    text = read(path)
    if old not in text:
        raise RefusedError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
    lines, start = [], text.find(old)
    while start != -1:
        lines.append(text.count("\n", 0, start) + 1)
        start = text.find(old, start + max(1, len(old)))
    if len(lines) > 1:
        repeated = f"Multiple occurrences of old_str `{old}` in lines {sorted(set(lines))}"
        raise RefusedError(f"No replacement was performed. {repeated}. Please ensure it is unique.")
    edited = text.replace(old, new)
    write(path, edited)
    keep(path, text)
    first, last = max(0, lines[0] - CONTEXT_LINES), lines[0] + CONTEXT_LINES + new.count("\n")
    snippet = "".join(edited.splitlines(True)[first:last])
    return "The file {} has been edited. {}Review the changes and make sure they are as expected. {}".format(
        path, numbered(snippet, f"a snippet of {path}", first + 1), "Edit the file again if necessary."
    )


def insert(path: Path, after: Any, new: str) -> str:
    """Put lines after a line; 0 puts them first."""
    text = read(path)
    lines, added = text.splitlines(True), [line + "\n" for line in new.split("\n")]
    if not isinstance(after, int) or not 0 <= after <= len(lines):
        raise invalid("insert_line", after, f"It should be within the range of allowed values: {[0, len(lines)]}")
    edited = lines[:after] + added + lines[after:]
    write(path, "".join(edited))
    keep(path, text)
    first = max(0, after - CONTEXT_LINES)
    snippet = "".join(edited[first : after + CONTEXT_LINES + len(added)])
    return "The file {} has been edited. {}Review the changes and make sure they are as expected ({}). {}".format(
        path,
        numbered(snippet, "a snippet of the edited file", first + 1),
        "correct indentation, no duplicate lines, etc",
        "Edit the file again if necessary.",
    )


def undo_edit(path: Path) -> str:
    """Take back the last edit."""
    earlier = sorted(history(path).glob("*"))
    if not earlier:
        raise RefusedError(f"No edit history found for {path}.")
    path.write_bytes(earlier[-1].read_bytes())
    earlier[-1].unlink()
    return f"Last edit to {path} undone successfully. {numbered(read(path), str(path))}"


def history(path: Path) -> Path:
    """The folder of a file's earlier contents, the latest last by name."""
    return STATE / hashlib.sha256(os.fsencode(str(path))).hexdigest()


def keep(path: Path, text: str) -> None:
    """Keep what a file was before."""
    folder = history(path)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "{:08d}".format(len(list(folder.glob("*"))))).write_bytes(text.encode("utf-8", "surrogateescape"))


def read(path: Path) -> str:
    """A file's text with LF line ends."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def write(path: Path, text: str) -> None:
    """Write a file's text."""
    try:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    except (OSError, UnicodeEncodeError) as error:
        raise RefusedError(f"Ran into {error} while trying to write to {path}") from error


def numbered(text: str, name: str, first: int = 1) -> str:
    """Lines with their numbers, under the heading that the agent knows."""
    shown = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + CLIPPED
    body = "\n".join(f"{n:6}\t{line}" for n, line in enumerate(shown.split("\n"), first))
    return f"Here's the result of running `cat -n` on {name}:\n{body}\n"


def main() -> int:
    """Read a call, answer it."""
    arguments, status = json.loads(sys.stdin.buffer.read().decode("utf-8")), 0
    try:
        answer = run(arguments)
    except RefusedError as refused:
        answer, status = f"ERROR:\n{refused}", 1
    except (OSError, ValueError) as error:
        answer, status = "ERROR:\nRan into {} while working on {}".format(error, arguments["path"]), 1
    sys.stdout.buffer.write(answer.encode("utf-8", "surrogateescape"))
    return status


if __name__ == "__main__":
    sys.exit(main())
