"""The check of the windowed tools: the codes, words and order of flake8 6 for the codes that SWE-agent selects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from swe_srl.scaffolds.tools import lint


def found(source: str, name: str = "a.py") -> list[str]:
    return [f"{line}:{column} {text}" for line, column, text in lint.check(source.encode(), name)]


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        ("x = 1\n", []),
        ("", []),
        ("def f(:\n", ["1:7 E999 SyntaxError: invalid syntax"]),
        ("y\n  x\n", ["2:2 E999 IndentationError: unexpected indent"]),
        ("if x:\n  y = 1\n", ["1:4 F821 undefined name 'x'", "2:3 E111 indentation is not a multiple of 4"]),
        ("if 1:\n  # a comment\n    # and\n    f = (\n  1)\n", []),
        ("def f(a, b, a):\n    return b\n", ["1:1 F831 duplicate argument 'a' in function definition"]),
        ("__all__ = ['f', 'g']\nf = 1\n", ["1:1 F822 undefined name 'g' in __all__"]),
        ("__all__ = ['f']\n__all__ += ['g']\nf = 1\n", ["2:1 F822 undefined name 'g' in __all__"]),
        ("from os import *\nx = anything\n", []),
        ("def f():\n    return later\nlater = 1\n", []),
        ("print(later)\nlater = 1\n", ["1:7 F821 undefined name 'later'"]),
        ("x: int\nprint(x)\n", ["2:7 F821 undefined name 'x'"]),
        ("class A:\n    x = 1\n    y = [x for _ in (1, 2)]\n    def f(self):\n        return x\n", [
            "5:16 F821 undefined name 'x'",
        ]),
        ("class A:\n    n = __qualname__\n    def f(self):\n        return __class__\n", []),
        ("try:\n    x = unknown\nexcept NameError:\n    pass\n", []),
        ("try:\n    x = unknown\nexcept Exception as e:\n    pass\nprint(e)\n", [
            "2:9 F821 undefined name 'unknown'", "5:7 F821 undefined name 'e'",
        ]),
        ("def f():\n    global g\n    g = 1\nprint(g)\n", []),
        ("x = 1\ndel x\nprint(x)\n", ["3:7 F821 undefined name 'x'"]),
        ("x = 1\nif x:\n    del x\nprint(x)\n", []),
        ("{k: v for k, v in {}.items()}\nprint(k)\n", ["2:7 F821 undefined name 'k'"]),
        ("if (n := 1):\n    print([(m := n) for _ in ()], m)\n", []),
        ("def f(a: 'Later', b: 'Unknown') -> 'int': ...\nclass Later: ...\n", ["1:22 F821 undefined name 'Unknown'"]),
        ("from typing import Literal\nx: Literal['no name'] = 'no name'\n", []),
        ("from __future__ import annotations\ndef f(a: Later): ...\nclass Later: ...\n", []),
        ("x = y  # noqa\nx = y  # noqa: F821\nx = y  # noqa: E501\n", ["3:5 F821 undefined name 'y'"]),
        ("# flake8: noqa\nx = y\n", []),
        ("match [1]:\n    case [a, *b]:\n        print(a, b)\n    case {'k': c, **d}:\n        print(c, d)\n", []),
        ("f = lambda a, *b, c=1, **d: (a, b, c, d, e)\n", ["1:42 F821 undefined name 'e'"]),
    ],
)  # fmt: skip
def test_what_is_found(source: str, problems: list[str]) -> None:
    assert found(source) == problems


def test_the_files_own_name_matters_for_packages() -> None:
    assert found("__all__ = ['later']\nprint(__path__)\n", "__init__.py") == []
    assert found("print(__path__)\n") == ["1:7 F821 undefined name '__path__'"]


def test_as_a_program(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes("é = ü\n".encode())
    done = subprocess.run([sys.executable, "-I", lint.__file__, str(file)], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (1, "1:6: F821 undefined name 'ü'\n", b"")
    done = subprocess.run([sys.executable, "-I", lint.__file__, str(tmp_path)], capture_output=True, check=False)
    assert done.stdout.decode().startswith("1:0: E902 IsADirectoryError: ")
