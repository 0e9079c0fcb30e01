"""SWE-agent's search tools, as an agent calls them inside a container: find_file, search_dir and search_file.

One file, standard library only, Python 3.6 and up; patterns are `grep`'s. `search.py VERSION TOOL [ARGUMENT…]` answers on
stdout; `search.py VERSION call` reads the tool and its arguments as a JSON list from stdin. Version 0 has no limit on the lines
that `search_file` shows. Invariant: changes nothing; what the file system leaves open is answered in the order of the names.
"""
# ruff: noqa: UP006, UP035
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List

STATE = Path(os.environ.get("SWE_SRL_STATE", "/var/tmp/swe-srl")) / "windowed"
LIMIT = 100
"""More files, or lines of a file, than this are not shown."""


def find_file(arguments: List[str]) -> str:
    """Every file of a name, or of a pattern of names."""
    if len(arguments) not in (1, 2):
        return "Usage: find_file <file_name> [<dir>]"
    name, folder = arguments[0], arguments[1] if len(arguments) == 2 else "./"
    if not os.path.isdir(folder):
        return f"Directory {folder} not found"
    folder = os.path.realpath(folder)
    found = [path for path in files(folder, hidden=True) if fnmatch.fnmatchcase(os.path.basename(path), name)]
    if not found:
        return f'No matches found for "{name}" in {folder}'
    return "\n".join([f'Found {len(found)} matches for "{name}" in {folder}:', *found])


def search_dir(arguments: List[str]) -> str:
    """How many lines of each file match."""
    if len(arguments) not in (1, 2):
        return "Usage: search_dir <search_term> [<dir>]"
    term, folder = arguments[0], arguments[1] if len(arguments) == 2 else "./"
    if not os.path.isdir(folder):
        return f"Directory {folder} not found"
    folder = os.path.realpath(folder)
    counts: Dict[str, int] = {}
    paths = files(folder, hidden=False)
    for start in range(0, len(paths), 500):
        for row in grep(["-IcH", "-Z"], term, paths[start : start + 500]).split("\n"):
            path, _, count = row.partition("\0")
            if count not in ("", "0"):
                counts[path] = int(count)
    if not counts:
        return f'No matches found for "{term}" in {folder}'
    if len(counts) > LIMIT:
        return f'More than {len(counts)} files matched for "{term}" in {folder}. Please narrow your search.'
    rows = [f"{path} ({counts[path]} matches)" for path in sorted(counts)]
    total = sum(counts.values())
    return "\n".join([f'Found {total} matches for "{term}" in {folder}:', *rows, f'End of matches for "{term}" in {folder}'])


def search_file(arguments: List[str], limited: bool) -> str:
    """The lines of a file that match."""
    usage = "Usage: search_file <search_term> [<file>]"
    if not arguments or not arguments[0]:
        return usage
    term = arguments[0]
    if len(arguments) > 1:
        path = arguments[1]
        if not os.path.isfile(path):
            return f"{usage}\nError: File name {path} not found. Please provide a valid file name."
    else:
        kept = STATE / "file"
        path = kept.read_text(encoding="utf-8", errors="surrogateescape") if kept.exists() else ""
        if not path:
            return "No file open. Use the open command first."
    path = os.path.realpath(path)
    rows = [row for row in grep(["-n"], term, [path]).split("\n") if row]
    if not rows:
        return f'No matches found for "{term}" in {path}'
    if limited and len(rows) > LIMIT:
        return f'More than {len(rows)} lines matched for "{term}" in {path}. Please narrow your search.'
    return "\n".join(
        [f'Found {len(rows)} matches for "{term}" in {path}:']
        + ["Line " + row for row in rows]
        + [f'End of matches for "{term}" in {path}']
    )


def files(folder: str, hidden: bool) -> List[str]:
    """The files below a folder, in the order of their paths; without those whose path has a hidden part, where not wanted."""
    found = []
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [os.path.join(place, name) for name in names]
    found = [path for path in found if os.path.isfile(path) and not os.path.islink(path)]
    return sorted(path for path in found if hidden or "/." not in path)


def grep(options: List[str], term: str, paths: List[str]) -> str:
    """What grep prints."""
    command = ["grep", *options, "--", term, *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode("utf-8", "surrogateescape")


def main() -> int:
    """Read a call, answer it."""
    version, tool, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    if tool == "call":
        tool, *arguments = json.loads(sys.stdin.buffer.read().decode("utf-8"))
    if tool == "find_file":
        answer = find_file(arguments)
    elif tool == "search_dir":
        answer = search_dir(arguments)
    else:
        answer = search_file(arguments, limited=version != "0")
    sys.stdout.buffer.write((answer + "\n").encode("utf-8", "surrogateescape"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
