"""SWE-agent's `str_replace_editor`, as an agent calls it inside a container: view, create, edit and undo.

One file, standard library only, Python 3.6 and up. The arguments are a JSON object on stdin, or a command line as SWE-agent
writes it; the answer goes to stdout. Invariant: a refused call changes no file and exits with status 1.

Wording, line numbers and side effects are those of the recorded interface. So an edit expands the tabs of the whole file and
turns its CRLF line ends into LF. An undo restores the bytes that were there before; creating a file cannot be undone.
"""
# ruff: noqa: UP006, UP035
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import argparse
import hashlib
import io
import json
import os
import sys
import tokenize
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

STATE = Path(os.environ.get("SWE_SRL_STATE", "/var/tmp/swe-srl"))
"""Where earlier contents are kept: outside any repository, and in a place that snapshots of the container include."""
COMMANDS = ("view", "create", "str_replace", "insert", "undo_edit")
CONTEXT_LINES = 4
MAX_CHARACTERS = 16000
ELIDED_LINES = 6
"""A function body of at least so many lines is left out of an abbreviated view."""
CLIPPED = (
    "<response clipped><NOTE>To save on context only part of this file has been shown to you. You should retry this tool after "
    "you have searched inside the file with `grep -n` in order to find the line numbers of what you are looking for.</NOTE>"
)
ABBREVIATED = (
    "<NOTE>This file is too large to display entirely. Showing abbreviated version. Please use `str_replace_editor view` with "
    "the `view_range` parameter to show selected lines next.</NOTE>\n{}\n<IMPORTANT><NOTE>The above file has been abbreviated. "
    "Please use `str_replace editor view` with `view_range` to look at relevant files in detail.</NOTE></IMPORTANT>"
)


class RefusedError(Exception):
    """The call was not carried out; the message is for the agent."""


def run(arguments: Mapping[str, Any], state: Path = STATE) -> str:
    """Carry out one call and return what the agent reads."""
    command, path = arguments["command"], Path(arguments["path"])
    check_path(command, path)
    if command == "view":
        return view(path, from_text(arguments.get("view_range")))
    if command == "create":
        return create(path, required(arguments, "file_text"))
    if command == "str_replace":
        return str_replace(path, required(arguments, "old_str"), arguments.get("new_str") or "", state)
    if command == "insert":
        return insert(path, from_text(required(arguments, "insert_line")), required(arguments, "new_str"), state)
    if command == "undo_edit":
        return undo_edit(path, state)
    known = ", ".join(f'"{name}"' for name in COMMANDS)
    raise RefusedError(f"Unrecognized command {command}. The allowed commands for the str_replace_editor tool are: {known}")


def check_path(command: str, path: Path) -> None:
    """Refuse a path that the command cannot work on."""
    if not path.is_absolute():
        raise RefusedError(
            f"The path {path} is not an absolute path, it should start with `/`. Maybe you meant {Path.cwd() / path}?"
        )
    if command == "create" and path.exists():
        raise RefusedError(f"File already exists at: {path}. Cannot overwrite files using command `create`.")
    if command != "create" and not path.exists():
        raise RefusedError(f"The path {path} does not exist. Please provide a valid path.")
    if command != "view" and path.is_dir():
        raise RefusedError(f"The path {path} is a directory and only the `view` command can be used on directories")


def required(arguments: Mapping[str, Any], name: str) -> Any:
    """The argument, which this command cannot do without."""
    if arguments.get(name) is None:
        raise RefusedError("Parameter `{}` is required for command: {}".format(name, arguments["command"]))
    return arguments[name]


def from_text(value: Any) -> Any:
    """A number or list that came as text, as in an answer written in XML; anything else unchanged."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def view(path: Path, view_range: Any) -> str:
    """The numbered lines of a file, or what a directory holds."""
    if path.is_dir():
        if view_range:
            raise RefusedError("The `view_range` parameter is not allowed when `path` points to a directory.")
        found = "\n".join(sorted(map(str, [path, *visible(path, levels=2)])))
        return f"Here's the files and directories up to 2 levels deep in {path}, excluding hidden items:\n{found}\n"
    text = read(path)[0]
    if view_range:
        lines = text.split("\n")
        first, last = checked_range(view_range, len(lines))
        return numbered("\n".join(lines[first - 1 : last]), str(path), first)
    if path.suffix == ".py" and len(text) > MAX_CHARACTERS:
        try:
            return ABBREVIATED.format(clip(outline(text).expandtabs()))
        except (SyntaxError, tokenize.TokenError):
            pass
    return numbered(text, str(path))


def visible(directory: Path, levels: int) -> List[Path]:
    """What lies in a directory, down to so many levels, without hidden items and without following links."""
    found = []
    for child in directory.iterdir():
        if not child.name.startswith("."):
            found.append(child)
            if levels > 1 and child.is_dir() and not child.is_symlink():
                found += visible(child, levels - 1)
    return found


def checked_range(view_range: Any, total: int) -> Tuple[int, int]:
    """First and last line to show, counted from 1."""
    if not isinstance(view_range, list) or len(view_range) != 2 or not all(isinstance(n, int) for n in view_range):
        raise RefusedError("Invalid `view_range`. It should be a list of two integers.")
    first, last = view_range
    wrong = None
    if not 1 <= first <= total:
        wrong = f"first element `{first}` should be within the range of lines of the file: {[1, total]}"
    elif last > total:
        wrong = f"second element `{last}` should be smaller than the number of lines in the file: `{total}`"
    elif last != -1 and last < first:
        wrong = f"second element `{last}` should be larger or equal than its first `{first}`"
    if wrong:
        raise RefusedError(f"Invalid `view_range`: {view_range}. Its {wrong}")
    return first, total if last == -1 else last


def outline(text: str) -> str:
    """Python source with line numbers, its long function bodies left out."""
    elided = [(first, last) for first, last in function_bodies(text) if last - first + 1 >= ELIDED_LINES]
    hidden = {line for first, last in elided for line in range(first, last + 1)}
    lines = (text[:-1] if text.endswith("\n") else text).split("\n")
    rows = [(n, line) for n, line in enumerate(lines, 1) if n not in hidden]
    rows += [(first, f"... eliding lines {first}-{last} ...") for first, last in elided]
    return "\n".join(f"{n:6d} {line}" for n, line in sorted(rows))


def function_bodies(text: str) -> List[Tuple[int, int]]:
    """First and last line of every indented function body. Reads tokens only: the source may be newer than this Python."""
    bodies = []
    blocks = []  # the first line of each open block, 0 where it is not a function's
    in_header, line_begins, last = False, True, 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.INDENT:
            blocks.append(token.start[0] if in_header else 0)
        elif token.type == tokenize.DEDENT:
            first = blocks.pop()
            if first:
                bodies.append((first, last))
        elif token.type == tokenize.NEWLINE:
            line_begins = True
        elif token.type not in (tokenize.COMMENT, tokenize.NL):
            if line_begins:
                in_header = token.string == "def"
            line_begins = line_begins and token.string == "async"
            last = token.end[0]
    return bodies


def create(path: Path, text: str) -> str:
    """Write a new file."""
    if not path.parent.exists():
        raise RefusedError(f"The parent directory {path.parent} does not exist. Please create it first.")
    write(path, text, "utf-8")
    return f"File created successfully at: {path}"


def str_replace(path: Path, old: str, new: str, state: Path) -> str:
    """Replace the only occurrence of a text."""
    text, encoding = read(path)
    text, old, new = text.expandtabs(), old.expandtabs(), new.expandtabs()
    count = text.count(old)
    if count == 0:
        raise RefusedError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
    if count > 1:
        lines = [n for n, line in enumerate(text.split("\n"), 1) if old in line]
        repeated = f"Multiple occurrences of old_str `{old}` in lines {lines}"
        raise RefusedError(f"No replacement was performed. {repeated}. Please ensure it is unique")
    if old == new:
        raise RefusedError(f"No replacement was performed, old_str `{old}` is the same as new_str `{new}`.")
    edited = text.replace(old, new)
    replace_contents(path, edited, encoding, state)
    before = text[: text.index(old)].count("\n")
    lines_in_file = edited.count("\n") + (not edited.endswith("\n"))
    first = max(1, before - CONTEXT_LINES)
    last = max(first, min(before + new.count("\n") + CONTEXT_LINES, lines_in_file))
    snippet = "\n".join(edited.split("\n")[first - 1 : last])
    return "The file {} has been edited. {}Review the changes and make sure they are as expected. {}".format(
        path, numbered(snippet, f"a snippet of {path}", first), "Edit the file again if necessary."
    )


def insert(path: Path, after: Any, new: str, state: Path) -> str:
    """Put lines after a line; 0 puts them first."""
    text, encoding = read(path)
    lines, added = text.expandtabs().split("\n"), new.expandtabs().split("\n")
    if not isinstance(after, int) or not 0 <= after <= len(lines):
        raise RefusedError(
            f"Invalid `insert_line` parameter: {after}. It should be within the range of lines of the file: {[0, len(lines)]}"
        )
    replace_contents(path, "\n".join(lines[:after] + added + lines[after:]), encoding, state)
    first = max(0, after - CONTEXT_LINES)
    snippet = "\n".join(lines[first:after] + added + lines[after : after + CONTEXT_LINES])
    return "The file {} has been edited. {}Review the changes and make sure they are as expected ({}). {}".format(
        path,
        numbered(snippet, "a snippet of the edited file", first + 1),
        "correct indentation, no duplicate lines, etc",
        "Edit the file again if necessary.",
    )


def undo_edit(path: Path, state: Path) -> str:
    """Take back the last `str_replace` or `insert`."""
    earlier = sorted(history(path, state).glob("*"))
    if not earlier:
        raise RefusedError(f"No edit history found for {path}.")
    path.write_bytes(earlier[-1].read_bytes())
    earlier[-1].unlink()
    return f"Last edit to {path} undone successfully. {numbered(read(path)[0], str(path))}"


def history(path: Path, state: Path) -> Path:
    """The folder of a file's earlier contents, the latest last by name."""
    return state / "history" / hashlib.sha256(os.fsencode(str(path))).hexdigest()


def replace_contents(path: Path, text: str, encoding: str, state: Path) -> None:
    """Write an edited file and keep what it was before."""
    folder, before = history(path, state), path.read_bytes()
    write(path, text, encoding)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "{:08d}".format(len(list(folder.glob("*"))))).write_bytes(before)


def read(path: Path) -> Tuple[str, str]:
    """A file's text with LF line ends, and the encoding it is in."""
    try:
        return path.read_text(encoding="utf-8"), "utf-8"
    except UnicodeDecodeError:
        return path.read_text(encoding="latin-1"), "latin-1"


def write(path: Path, text: str, encoding: str) -> None:
    """Write a file's text. Encoded before the file is opened: a text that cannot be encoded leaves the file as it was."""
    try:
        path.write_bytes(text.encode(encoding))
    except (OSError, UnicodeEncodeError) as error:
        raise RefusedError(f"Ran into {error} while trying to write to {path}") from error


def clip(text: str) -> str:
    """The text, or its beginning and a note."""
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + CLIPPED


def numbered(text: str, name: str, first: int = 1) -> str:
    """Lines with their numbers, under the heading that the agent knows."""
    lines = clip(text).expandtabs().split("\n")
    body = "\n".join(f"{n:6}\t{line}" for n, line in enumerate(lines, first))
    return f"Here's the result of running `cat -n` on {name}:\n{body}\n"


def parse_command_line(words: List[str]) -> Dict[str, Any]:
    """The arguments of `str_replace_editor view PATH --view_range 1 9` and the like."""
    parser = argparse.ArgumentParser(prog="str_replace_editor")
    parser.add_argument("command")
    parser.add_argument("path")
    for name in ("--file_text", "--old_str", "--new_str"):
        parser.add_argument(name)
    parser.add_argument("--insert_line", type=int)
    parser.add_argument("--view_range", type=int, nargs=2)
    return vars(parser.parse_args(words))


def main() -> int:
    """Read a call, answer it."""
    status = 0
    arguments = parse_command_line(sys.argv[1:]) if len(sys.argv) > 1 else json.loads(sys.stdin.buffer.read().decode("utf-8"))
    try:
        answer = run(arguments)
    except RefusedError as refused:
        answer, status = str(refused), 1
    except (OSError, ValueError) as error:
        answer, status = "Ran into {} while working on {}".format(error, arguments["path"]), 1
    sys.stdout.buffer.write((answer + "\n").encode("utf-8", "backslashreplace"))
    return status


if __name__ == "__main__":
    sys.exit(main())
