"""The check that SWE-agent's windowed tools make of a Python file before they accept an edit.

One file, standard library only, Python 3.6 and up. Reports what `flake8 --isolated --select=F821,F822,F831,E111,E112,E113,E999,
E902` of flake8 6 reports, as `LINE:COLUMN: CODE text`: a syntax error alone (E999, in the words of the interpreter that runs
this), else indentation that is no multiple of four (E111), undefined names (F821, and F822 in `__all__`) and arguments given
twice (F831). E112 and E113 are always syntax errors. Scoping follows pyflakes: function bodies are looked at after the module,
a name that may be bound is bound, an import of everything hides what is undefined. `# noqa` on a line is honoured.
Invariant: reads one file, changes nothing, and answers for every input.
"""
# ruff: noqa: D102, N802, UP006, UP035, UP045
# (annotations are evaluated when this runs, and Python 3.6 knows only typing's generics)

import ast
import builtins
import io
import os
import re
import sys
import tokenize
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

Problem = Tuple[int, int, str]
"""Line from 1, column from 1, and `CODE text`."""

MODULE_NAMES = {"__file__", "__builtins__", "__annotations__", "WindowsError"}
CLASS_NAMES = {"__module__", "__qualname__"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
NOQA = re.compile(r"# noqa(?::\s?(?P<codes>(?:[A-Z]+\d+[,\s]*)+))?", re.IGNORECASE)
FILE_NOQA = re.compile(r"\s*# flake8[:=]\s*noqa", re.IGNORECASE)


def check(source: bytes, name: str) -> List[Problem]:
    """What is wrong with a Python file, in the order of its lines. name: the file's own name, without folders."""
    if any(FILE_NOQA.match(line) for line in source.decode("utf-8", "replace").splitlines()):
        return []
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        return [(error.lineno or 1, error.offset or 0, f"E999 {type(error).__name__}: {error.args[0]}")]
    except ValueError as error:  # a null byte, on older versions
        return [(1, 0, f"E999 {type(error).__name__}: {error}")]
    lines = io.TextIOWrapper(io.BytesIO(source), tokenize.detect_encoding(io.BytesIO(source).readline)[0]).readlines()
    tokens = list(tokenize.generate_tokens(iter(lines).__next__))
    found, excuses = indentation(tokens) + Names(tree, name).problems, excused(tokens, lines)
    kept = (problem for problem in found if not any(problem[2].startswith(code) for code in excuses.get(problem[0], ())))
    return sorted(kept, key=lambda problem: problem[:2])


def excused(tokens: List[tokenize.TokenInfo], lines: List[str]) -> Dict[int, List[str]]:
    """The beginnings of the codes that each line says are meant; a text of several lines says it for all of them."""
    excuses: Dict[int, List[str]] = {}
    first, last = len(lines) + 2, -1
    for token in tokens:
        if token.type in (tokenize.ENDMARKER, tokenize.DEDENT):
            continue
        first, last = min(first, token.start[0]), max(last, token.end[0])
        if token.type in (tokenize.NL, tokenize.NEWLINE):
            match = NOQA.search("".join(lines[first - 1 : last]))
            if match:
                codes = re.split(r"[,\s]+", match.group("codes").strip(", \t\n").upper()) if match.group("codes") else [""]
                excuses.update((line, codes) for line in range(first, last + 1))
            first, last = len(lines) + 2, -1
    return excuses


def indentation(tokens: List[tokenize.TokenInfo]) -> List[Problem]:
    """E111 of each logical line."""
    found, begins = [], True
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
    for token in tokens:
        if token.type == tokenize.NEWLINE:
            begins = True
        elif begins and token.type not in layout:
            begins = False
            indent = token.line[: len(token.line) - len(token.line.lstrip())].expandtabs(8)
            if len(indent) % 4:
                found.append((token.start[0], token.start[1] + 1, "E111 indentation is not a multiple of 4"))
    return found


class Scope:
    """The names bound in a module, class, function, comprehension or list of type parameters."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bound: Set[str] = set()
        self.annotated: Set[str] = set()
        self.imports_all = False


class Names:
    """Walks a module in the order of its execution and collects F821, F822 and F831."""

    def __init__(self, tree: ast.AST, name: str) -> None:
        module = Scope("module")
        module.bound = set(dir(builtins)) | MODULE_NAMES | ({"__path__"} if name == "__init__.py" else set())
        self.problems: List[Problem] = []
        self.scopes = [module]
        self.deferred: List[Tuple[Callable[[], None], List[Scope], int]] = []
        self.exported: Dict[str, ast.AST] = {}
        self.in_annotation = False
        self.postponed = any(
            isinstance(node, ast.ImportFrom) and "annotations" in [alias.name for alias in node.names]
            for node in getattr(tree, "body", [])
        )
        self.conditional = 0
        self.name_error_caught = False
        self.visit_all(tree)
        while self.deferred:
            later, self.scopes, self.conditional = self.deferred.pop(0)
            later()
        if not module.imports_all and name != "__init__.py":
            for text, node in self.exported.items():
                if text not in module.bound:
                    self.report(node, f"F822 undefined name {text!r} in __all__")

    def report(self, node: Any, text: str) -> None:
        self.problems.append((node.lineno, node.col_offset + 1, text))

    def defer(self, later: Callable[[], None]) -> None:
        """Look at something when the module has been run: what a function does, or a quoted annotation."""
        self.deferred.append((later, list(self.scopes), self.conditional))

    def visit_all(self, node: ast.AST) -> None:
        for child in children(node):
            self.visit(child)

    def visit_each(self, nodes: Any) -> None:
        for node in nodes:
            self.visit(node)

    def visit(self, node: Any) -> None:
        if node is None:
            return
        if isinstance(node, FUNCTIONS):
            self.function(node)
        elif isinstance(node, COMPREHENSIONS):
            self.scopes.append(Scope("comprehension"))
            self.visit_all(node)
            self.scopes.pop()
        else:
            getattr(self, "visit_" + type(node).__name__, self.visit_all)(node)

    def bind(self, name: str) -> None:
        self.scopes[-1].bound.add(name)

    def load(self, name: str, node: Any) -> None:
        """Report a name that no scope in reach binds."""
        class_reached, imports_all = True, False
        for scope in reversed(self.scopes):
            if scope.kind == "class":
                if name == "__class__":
                    return
                if not class_reached:
                    continue
            if name in scope.bound or (name in scope.annotated and self.in_annotation and self.postponed):
                return
            imports_all = imports_all or scope.imports_all
            class_reached = class_reached and scope.kind in ("comprehension", "types")
        magic = name in CLASS_NAMES and self.scopes[-1].kind == "class"
        if not (imports_all or magic or self.name_error_caught):
            self.report(node, f"F821 undefined name {name!r}")

    def visit_Name(self, node: Any) -> None:
        if isinstance(node.ctx, ast.Load):
            self.load(node.id, node)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        elif not self.conditional:  # whether a branch is taken cannot be known
            if node.id not in self.scopes[-1].bound:
                self.report(node, f"F821 undefined name {node.id!r}")
            self.scopes[-1].bound.discard(node.id)

    def visit_NamedExpr(self, node: Any) -> None:
        self.visit(node.value)
        next(scope for scope in reversed(self.scopes) if scope.kind != "comprehension").bound.add(node.target.id)

    def visit_Global(self, node: Any) -> None:
        if self.scopes[-1].kind == "function":
            for scope in [self.scopes[0], *self.scopes[1:]]:
                scope.bound.update(node.names)
            undefined = {f"F821 undefined name {name!r}" for name in node.names}
            self.problems = [problem for problem in self.problems if problem[2] not in undefined]

    visit_Nonlocal = visit_Global

    def visit_Import(self, node: Any) -> None:
        for alias in node.names:
            self.bind(alias.asname or alias.name.split(".")[0])

    def visit_ImportFrom(self, node: Any) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.scopes[-1].imports_all = True
            else:
                self.bind(alias.asname or alias.name)

    def visit_Assign(self, node: Any) -> None:
        self.visit(node.value)
        self.visit_each(node.targets)
        self.export(node.targets, node.value, node, fresh=True)

    def visit_AugAssign(self, node: Any) -> None:
        if isinstance(node.target, ast.Name):
            self.load(node.target.id, node.target)
        self.visit(node.value)
        self.visit(node.target)
        self.export([node.target], node.value, node, fresh=False)

    def visit_AnnAssign(self, node: Any) -> None:
        self.annotation(node.annotation)
        if node.value is None and isinstance(node.target, ast.Name):
            self.scopes[-1].annotated.add(node.target.id)
            return
        alias = getattr(node.annotation, "attr", getattr(node.annotation, "id", "")) == "TypeAlias"
        (self.annotation if alias else self.visit)(node.value)
        self.visit(node.target)
        self.export([node.target], node.value, node, fresh=True)

    def export(self, targets: List[Any], value: Any, node: ast.AST, fresh: bool) -> None:
        """Remember what `__all__` lists, where it is a plain list of texts."""
        if self.scopes[-1].kind != "module" or not any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets):
            return
        if fresh:
            self.exported = {}
        if isinstance(value, (ast.List, ast.Tuple)):
            texts = [text for text in map(literal_text, value.elts) if text is not None]
            self.exported = dict.fromkeys(list(self.exported) + texts, node)

    def visit_ClassDef(self, node: Any) -> None:
        self.visit_each(node.decorator_list)
        self.with_type_parameters(node, lambda: self.class_body(node))
        self.bind(node.name)

    def class_body(self, node: Any) -> None:
        self.visit_each(node.bases)
        self.visit_each(node.keywords)
        self.scopes.append(Scope("class"))
        self.visit_each(node.body)
        self.scopes.pop()

    def branch(self, node: ast.AST) -> None:
        self.conditional += 1
        self.visit_all(node)
        self.conditional -= 1

    visit_If = visit_While = visit_IfExp = branch

    def visit_Try(self, node: Any) -> None:
        before, self.name_error_caught = self.name_error_caught, any(catches_name_error(h.type) for h in node.handlers)
        self.visit_each(node.body)
        self.name_error_caught = before
        self.visit_each(node.handlers)
        self.visit_each(node.orelse)
        self.visit_each(node.finalbody)

    visit_TryStar = visit_Try

    def visit_ExceptHandler(self, node: Any) -> None:
        self.visit(node.type)
        before = node.name in self.scopes[-1].bound
        if node.name:
            self.bind(node.name)
        self.visit_each(node.body)
        if node.name and not before:
            self.scopes[-1].bound.discard(node.name)

    def visit_MatchAs(self, node: Any) -> None:
        self.visit_all(node)
        if node.name:
            self.bind(node.name)

    visit_MatchStar = visit_MatchAs

    def visit_MatchMapping(self, node: Any) -> None:
        self.visit_all(node)
        if node.rest:
            self.bind(node.rest)

    def function(self, node: Any) -> None:
        self.visit_each(getattr(node, "decorator_list", []))
        self.with_type_parameters(node, lambda: self.signature(node))
        if not isinstance(node, ast.Lambda):
            self.bind(node.name)

    def signature(self, node: Any) -> None:
        given = node.args
        arguments = getattr(given, "posonlyargs", []) + given.args + given.kwonlyargs
        arguments += [extra for extra in (given.vararg, given.kwarg) if extra]
        names = [argument.arg for argument in arguments]
        for i, name in enumerate(names):
            if name in names[:i]:
                self.report(node, f"F831 duplicate argument {name!r} in function definition")
        for argument in arguments:
            self.annotation(argument.annotation)
        self.annotation(getattr(node, "returns", None))
        self.visit_each(given.defaults + given.kw_defaults)

        def run() -> None:
            scope = Scope("function")
            scope.bound.update(names)
            self.scopes.append(scope)
            self.visit_each(node.body if isinstance(node.body, list) else [node.body])
            self.scopes.pop()

        self.defer(run)

    def with_type_parameters(self, node: Any, inside: Callable[[], None]) -> None:
        scope = Scope("types")
        self.scopes.append(scope)
        for parameter in getattr(node, "type_params", []):
            scope.bound.add(parameter.name)
            self.defer(lambda parameter=parameter: self.visit_all(parameter))  # type: ignore[misc]
        inside()
        self.scopes.pop()

    def visit_TypeAlias(self, node: Any) -> None:
        self.visit(node.name)
        self.with_type_parameters(node, lambda: self.defer(lambda: self.annotation(node.value)))

    def annotation(self, node: Any) -> None:
        if node is not None and self.postponed:
            self.defer(lambda: self.read_annotation(node))
        elif node is not None:
            self.read_annotation(node)

    def read_annotation(self, node: Any) -> None:
        before, self.in_annotation = self.in_annotation, True
        self.visit(node)
        self.in_annotation = before

    def visit_Subscript(self, node: Any) -> None:
        target = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        before, self.in_annotation = self.in_annotation, self.in_annotation and target != "Literal"
        self.visit_all(node)
        self.in_annotation = before

    def visit_Call(self, node: Any) -> None:
        before, self.in_annotation = self.in_annotation, False
        self.visit_all(node)
        self.in_annotation = before

    def visit_Constant(self, node: Any) -> None:
        text = literal_text(node)
        if self.in_annotation and text is not None:
            self.defer(lambda: self.quoted(text or "", node))

    visit_Str = visit_Constant

    def quoted(self, text: str, node: Any) -> None:
        """A quoted annotation: its names stand where the text stands."""
        try:
            inner = ast.parse(text.strip(), mode="eval")
        except (SyntaxError, ValueError):
            return
        for child in ast.walk(inner):
            if hasattr(child, "lineno"):
                ast.copy_location(child, node)
        self.read_annotation(inner.body)


def children(node: ast.AST) -> Iterator[Any]:
    """The nodes below, the one that is evaluated first before those that it binds."""
    first = next((name for name in ("iter", "generators", "value") if name in node._fields), "")
    for field in sorted(node._fields, key=lambda name: name != first):
        value = getattr(node, field, None)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield item


def catches_name_error(node: Optional[ast.AST]) -> bool:
    """True for a handler that names NameError."""
    named = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(getattr(name, "id", getattr(name, "attr", "")) == "NameError" for name in named)


def literal_text(node: Any) -> Optional[str]:
    """The text of a text literal, None for anything else."""
    value = getattr(node, "value", None) if type(node).__name__ == "Constant" else getattr(node, "s", None)
    return value if isinstance(value, str) else None


def main() -> int:
    """Check one file."""
    path = sys.argv[1]
    try:
        with open(path, "rb") as file:
            source = file.read()
        found = check(source, os.path.basename(path))
    except (OSError, RecursionError) as error:
        found = [(1, 0, f"E902 {type(error).__name__}: {error}")]
    for line, column, text in found:
        sys.stdout.buffer.write(f"{line}:{column}: {text}\n".encode("utf-8", "backslashreplace"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
