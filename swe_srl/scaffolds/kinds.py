"""What an action is for: to read, to edit, to submit, or anything else.

Invariant: `read` and `edit` are said only of what is known to be that. A command that cannot be parsed, and one that runs a
program which is not in the tables below, is `other` unless a known part of it edits. Nothing is executed.

A shell command is parsed with tree-sitter's bash grammar, so that quotes, here-documents, pipes, loops and substitutions are
what bash takes them for. Of all the simple commands in it:

1. it is an `edit` when one of them is known to change files, or output is redirected to a file;
2. else it is `other` when one of them is not known, or does not parse;
3. else it is a `read`.

What only touches /dev changes nothing; what only touches /tmp is `other`: notes and logs are no edits of the repository.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from swe_srl.scaffolds import get_scaffold, is_scaffold
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.scaffolds.bash import parse

if TYPE_CHECKING:
    import tree_sitter

Kind = Literal["read", "edit", "submit", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SHELLS = {"bash", "execute_bash", "shell", "run_bash", "execute_command"}
_EDITORS = {"str_replace_editor", "str_replace_based_edit_tool", "file_editor"}
_SUBMITS = {"submit", "finish"}
_TOOLS: dict[str, Kind] = {
    **dict.fromkeys(("open", "goto", "scroll_up", "scroll_down", "find_file", "search_dir", "search_file"), "read"),
    **dict.fromkeys(("set_cursors", "search", "view", "read", "grep", "glob"), "read"),
    **dict.fromkeys(("create", "edit", "insert", "apply_patch", "write"), "edit"),
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEUTRAL = _names("cd echo printf true false test [ : export set unset read pushd popd exit return sleep wait local shift")
_READS = _names(
    """
    ag awk basename cat cmp column comm cut date df diff dir dirname du egrep env fgrep file find fold gawk getent grep head
    hexdump hostname id jq ldd less ls man md5sum more nl od paste printenv ps pwd readlink realpath rev rg sed seq sha1sum
    sha256sum sort stat strings tac tail tr tree type uname uniq wc whereis which whoami xxd zgrep
    """
)
_EDITS = _names("chmod chown cp dd dos2unix ed ex install ln mkdir mv patch rename rm rmdir tee touch truncate unlink")
_WRAPPERS = _names("builtin command env exec nice nohup stdbuf sudo time timeout xargs")
_GIT_READS = _names(
    """
    annotate blame cat-file check-ignore count-objects describe diff for-each-ref grep help log ls-files ls-tree merge-base
    name-rev reflog rev-list rev-parse shortlog show show-ref status version whatchanged
    """
)
_GIT_EDITS = _names("am apply checkout cherry-pick clean merge mv pull rebase reset restore revert rm stash switch")
# Arguments with which a program that otherwise reads changes files.
_EDITING_ARGUMENTS = {
    "sed": re.compile(r"-[a-zA-Z]*i|--in-place"),
    "find": re.compile(r"-delete\Z|-fprint"),
    "sort": re.compile(r"-o|--output"),
}
_FIND_RUNS = re.compile(r"-(?:exec|ok)(?:dir)?\Z")
# An awk program that prints to a file or runs another; a comparison after a print is taken for it, too.
_AWK_RUNS = re.compile(r"(?s).*(?:print[^;}\n]*>|(?<!\|)\|(?!\|)|system|getline)|-i")


def action_kind(action: Action, scaffold: str) -> Kind:
    """What the action is for; of several calls the first of submit, edit, other, read that occurs.

    Raises ValueError for an action without calls.
    """
    if not action.calls:
        raise ValueError(f"an action without tool calls is of no kind ({action.error or 'no calls'})")
    return _strongest([call_kind(call, scaffold) for call in action.calls])


def call_kind(call: ToolCall, scaffold: str) -> Kind:
    """What one call is for, in a trajectory that was recorded with the scaffold of that name (it need not be known here)."""
    if call.name in _SUBMITS or (is_scaffold(scaffold) and get_scaffold(scaffold).is_submit(call)):
        return "submit"
    command = call.arguments.get("command")
    if call.name in _EDITORS:
        return {"view": "read", "create": "edit", "str_replace": "edit", "insert": "edit", "undo_edit": "edit"}.get(
            str(command), "other"
        )  # type: ignore[return-value]
    if call.name in _SHELLS and isinstance(command, str):
        words = command.split(None, 1)
        # The windowed tools are typed into the shell, some of them in a syntax that is not bash.
        if scaffold.startswith("swe-agent-") and words and words[0] in _TOOLS:
            return _TOOLS[words[0]]
        return command_kind(command)
    return _TOOLS.get(call.name, "other")


def command_kind(command: str) -> Kind:
    """What a bash command is for: read, edit or other."""
    root = parse(command)
    kinds: list[Kind] = ["other"] if root.has_error else []
    for node in _walk(root):
        if node.type == "command":
            kinds.append(_simple_command(_words(node)))
        elif node.type == "file_redirect":
            kinds.append(_redirect(node))
    return _strongest(kinds) if kinds else "other"


def _simple_command(words: Sequence[str]) -> Kind:
    """`words` are a program and its arguments, unquoted as far as that is certain; assignments alone have none."""
    if not words:
        return "read"
    name, arguments = words[0].rsplit("/", 1)[-1], words[1:]
    if name in _WRAPPERS:
        inner = [i for i, word in enumerate(arguments) if not re.match(r"[-\d{}]|\w+=", word)]
        return _simple_command(arguments[inner[0] :]) if inner else ("read" if name == "env" else "other")
    if name == "git":
        return _git(arguments)
    if name in _EDITING_ARGUMENTS and any(map(_EDITING_ARGUMENTS[name].match, arguments)):
        return "edit"
    if name == "find":
        runs = [i for i, word in enumerate(arguments) if _FIND_RUNS.match(word)]
        return _strongest(["read", *(_simple_command(arguments[i + 1 :]) for i in runs)])
    if name in ("awk", "gawk") and any(map(_AWK_RUNS.match, arguments)):
        return "other"
    if name in _EDITS:
        return _target_kind([word for word in arguments if not word.startswith("-")])
    return "read" if name in _READS or name in _NEUTRAL else "other"


def _git(arguments: Sequence[str]) -> Kind:
    words = list(arguments)
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in ("-C", "-c") else words[1:]
    name = words[0] if words else "help"
    if name in _GIT_READS or (name in ("branch", "tag", "remote") and all(word.startswith("-") for word in words[1:])):
        return "read"
    if name == "stash" and words[1:2] in (["list"], ["show"]):
        return "read"
    return "edit" if name in _GIT_EDITS else "other"


def _redirect(node: tree_sitter.Node) -> Kind:
    target = _text(node.child_by_field_name("destination"))
    if any(child.type in ("<", "<&") for child in node.children) or target.isdecimal() or target == "-":
        return "read"
    return _target_kind([target])


def _target_kind(paths: Sequence[str]) -> Kind:
    if paths and all(path.startswith("/dev/") for path in paths):
        return "read"
    return "other" if paths and all(path.startswith("/tmp/") for path in paths) else "edit"


def _words(command: tree_sitter.Node) -> list[str]:
    name = command.child_by_field_name("name")
    return [_text(node) for node in (name, *command.children_by_field_name("argument")) if node is not None]


def _text(node: tree_sitter.Node | None) -> str:
    text = (node.text or b"").decode(errors="replace") if node is not None else ""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text.removeprefix("\\")


def _walk(root: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    left = [root]
    while left:
        node = left.pop()
        yield node
        left += node.named_children


def _strongest(kinds: Sequence[Kind]) -> Kind:
    order: tuple[Kind, ...] = ("submit", "edit", "other", "read")
    return min(kinds, key=order.index)
