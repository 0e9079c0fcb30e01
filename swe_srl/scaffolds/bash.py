"""A bash command taken apart: its simple commands, their words without quotes, what they read and write.

Parsed with tree-sitter's bash grammar; nothing is executed or expanded. Invariant: `pipelines` gives None for what does not
parse, and a word that bash would expand (a variable, a substitution) stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tree_sitter

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "v": "\v", "0": "\0"}
_TRANSPARENT = {"program", "list", "compound_statement", "subshell", "do_group"}
_OPAQUE = {
    *("if_statement", "for_statement", "c_style_for_statement", "while_statement", "case_statement", "function_definition"),
    *("test_command", "unset_command"),
}


@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirection of a simple command to or from a file or descriptor."""

    operator: str
    """With its descriptor, as written: `>`, `>>`, `2>`, `<`, `2>&` …"""
    target: str


@dataclass(frozen=True, slots=True)
class Command:
    """A simple command, or a compound one (`if`, `for`, …) as one word: its source."""

    words: tuple[str, ...]
    """The program and its arguments; empty where there are assignments alone."""
    assignments: tuple[str, ...] = ()
    """`NAME=value` before the program, or alone."""
    stdin: str | None = None
    """What a here-document or here-string gives it to read."""
    redirects: tuple[Redirect, ...] = ()
    compound: bool = False


Pipeline = tuple[Command, ...]


def parse(command: str) -> tree_sitter.Node:
    """The root of the command's syntax tree; offsets in it are bytes of the command in UTF-8."""
    return _parser().parse(command.encode(errors="replace")).root_node


def pipelines(command: str) -> list[Pipeline] | None:
    """The pipelines of a command in the order written, whatever joins them; None where it does not parse."""
    root = parse(command)
    return None if root.has_error else list(_pipelines(root))


def word_of(node: tree_sitter.Node) -> str:
    """A word without its quotes and escapes."""
    text = source_of(node)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "string":
        return re.sub(r'\\([$`"\\\n])', lambda match: match[1].strip("\n"), text[1:-1])
    if node.type == "ansi_c_string":
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[2:-1], flags=re.DOTALL)
    if node.type == "concatenation":
        return "".join(map(word_of, node.named_children))
    if node.type in ("word", "command_name") and not any(child.type != "word" for child in node.named_children):
        return re.sub(r"\\(.)", lambda match: match[1].strip("\n"), text, flags=re.DOTALL)
    if node.type == "command_name" and len(node.named_children) == 1:
        return word_of(node.named_children[0])
    return text


def source_of(node: tree_sitter.Node) -> str:
    """What stands at a node."""
    return (node.text or b"").decode(errors="replace")


def _pipelines(node: tree_sitter.Node) -> Iterator[Pipeline]:
    if node.type in _TRANSPARENT:
        for child in node.named_children:
            yield from _pipelines(child)
    elif node.type == "pipeline":
        parts = [tuple(_pipelines(child)) for child in node.named_children]
        yield tuple(command for part in parts for pipeline in part for command in pipeline)
    elif node.type == "redirected_statement":
        yield from _redirected(node)
    elif node.type == "negated_command":
        inner = list(_pipelines(node.named_children[0])) if node.named_children else []
        yield tuple(replace(command, words=("!", *command.words)) for pipeline in inner for command in pipeline)
    elif node.type == "command":
        yield (_command(node),)
    elif node.type in ("variable_assignment", "variable_assignments"):
        yield (Command((), (source_of(node),)),)
    elif node.type == "declaration_command":
        yield (Command(tuple(source_of(node).split())),)
    elif node.type in _OPAQUE:
        yield (Command((source_of(node),), compound=True),)


def _command(node: tree_sitter.Node) -> Command:
    words, assignments, stdin = [], [], None
    redirects: list[Redirect] = []
    for index, child in enumerate(node.children):
        if child.type == "variable_assignment":
            assignments.append(source_of(child))
        elif child.type == "herestring_redirect":
            stdin = word_of(child.named_children[-1])
        elif child.type == "file_redirect":
            redirects.append(_redirect(child))
        elif node.field_name_for_child(index) in ("name", "argument"):
            words.append(word_of(child))
    return Command(tuple(words), tuple(assignments), stdin, tuple(redirects))


def _redirected(node: tree_sitter.Node) -> Iterator[Pipeline]:
    """A statement with redirections: they are its last command's, and so is a here-document."""
    body = node.child_by_field_name("body")
    found: list[Pipeline] = list(_pipelines(body)) if body is not None else [(Command(()),)]
    if not found or not found[-1]:
        return
    command, stdin = found[-1][-1], found[-1][-1].stdin
    redirects: list[Redirect] = []
    piped: list[Command] = []
    following: list[Pipeline] = []
    for child in node.named_children:
        if child.type == "file_redirect":
            redirects.append(_redirect(child))
        elif child.type == "herestring_redirect":
            stdin = word_of(child.named_children[-1])
        elif child.type == "heredoc_redirect":
            for part in child.named_children:
                if part.type == "heredoc_body":
                    stdin = source_of(part)
                elif part.type == "file_redirect":
                    redirects.append(_redirect(part))
                elif part.type == "pipeline":
                    piped += [command for pipeline in _pipelines(part) for command in pipeline]
                elif part.type not in ("heredoc_start", "heredoc_end"):
                    following += _pipelines(part)
    command = replace(command, stdin=stdin, redirects=(*command.redirects, *redirects))
    yield from found[:-1]
    yield (*found[-1][:-1], command, *piped)
    yield from following


def _redirect(node: tree_sitter.Node) -> Redirect:
    destination = node.child_by_field_name("destination")
    target = word_of(destination) if destination is not None else ""
    operator = "".join(source_of(child) for child in node.children if child != destination)
    return Redirect(operator.strip(), target)


@cache
def _parser() -> tree_sitter.Parser:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))
