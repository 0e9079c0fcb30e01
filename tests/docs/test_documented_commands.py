"""Every command in the documentation is run, or says what it needs; and whatever is not run at least exists."""

from __future__ import annotations

import doctest
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import console
import pytest
import typer
from docker import DockerClient

from swe_srl.cli import app
from swe_srl.config import Recipe, Section

ROOT = console.ROOT
PAGES = {str(page.relative_to(ROOT)): page for page in console.pages()}
FENCES = [fence for page in PAGES.values() for fence in console.fences(page)]
SHOWN_ONLY = {"toml", "json", "python", "pycon", "text"}
RUN = [
    name for name, page in PAGES.items() if any(fence.kind == "console" and not fence.needs for fence in console.fences(page))
]

PYTHON = [name for name, page in PAGES.items() if re.search(r"^>>> ", page.read_text(encoding="utf-8"), re.MULTILINE)]


def where(fence: console.Fence) -> str:
    return f"{fence.page.relative_to(ROOT)}:{fence.line}"


@pytest.mark.parametrize("name", RUN)
def test_a_pages_commands_run_and_print_what_it_shows(
    name: str, tmp_path: Path, client: DockerClient, base_image: str, builtin_model: str
) -> None:
    done = 0
    for fence, command, printed in console.run_page(PAGES[name], tmp_path):
        done += 1
        if command.output and fence.marks.get("output") != "varies":
            difference = console.differs(command.output, printed)
            assert difference is None, f"{where(fence)}: {command.text}\n{difference}"
    assert done == sum(
        len(fence.commands) for fence in console.fences(PAGES[name]) if fence.kind == "console" and not fence.needs
    )


def test_commands_stand_in_fences_that_are_run_or_say_what_they_need() -> None:
    for fence in FENCES:
        assert fence.kind in {"console", *SHOWN_ONLY}, f"{where(fence)}: a fence of the kind {fence.kind!r}"
        if fence.kind != "console":
            assert not any(line.startswith("$ ") for line in fence.body), (
                f"{where(fence)}: a command outside of a console fence"
            )
            assert not fence.needs, f"{where(fence)}: only commands need something"
            continue
        assert fence.commands, f"{where(fence)}: a console fence without a command"
        assert fence.body[0].startswith("$ "), f"{where(fence)}: begins with no command"
        if fence.needs:
            word, _, duration = fence.needs.partition(", ")
            assert word in console.NEEDS, f"{where(fence)}: needs {word!r}; known are {', '.join(console.NEEDS)}"
            assert bool(duration) == (word == "time"), f"{where(fence)}: `time`, and nothing else, is followed by a duration"
            assert not duration or re.fullmatch(r"\d+ (min|h)", duration), f"{where(fence)}: no duration: {duration}"


def test_fences_that_indent_hide_no_command() -> None:
    for name, page in PAGES.items():
        indented = re.findall(r"^    (?:\$ |python |swe-srl |make |pip ).*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not indented, f"{name}: a command in an indented block is never checked: {indented[0]}"


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.kind == "console" and fence.needs], ids=where)
def test_a_command_that_is_not_run_names_what_exists(fence: console.Fence) -> None:
    for command in fence.commands:
        for words in simple_commands(command.text):
            problem = unknown(words)
            assert problem is None, f"{where(fence)}: {command.text}: {problem}"


def test_commands_named_in_sentences_exist() -> None:
    for name, page in PAGES.items():
        for text in re.findall(r"(?<!`)`(swe-srl [^`\n]+)`", page.read_text(encoding="utf-8")):
            for words in simple_commands(text.replace("…", "")):
                assert unknown(words) is None, f"{name}: `{text}`: {unknown(words)}"


def test_make_targets_named_in_sentences_exist() -> None:
    for name, page in PAGES.items():
        for target in re.findall(r"`make (\S+?)`", page.read_text(encoding="utf-8")):
            assert unknown(["make", target]) is None, f"{name}: make {target}"


@pytest.mark.parametrize(
    "name", [name for name in PAGES if re.search(r"^>>> ", PAGES[name].read_text(encoding="utf-8"), re.MULTILINE)]
)
def test_python_sessions_print_what_is_shown(name: str) -> None:
    text = "\n\n".join("\n".join(fence.body) for fence in console.fences(PAGES[name]) if fence.kind == "pycon")
    session = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    assert session.examples
    printed: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(session, out=printed.append).failed
    assert failed == 0, "".join(printed)


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.kind == "python"], ids=where)
def test_python_fences_run(fence: console.Fence) -> None:
    exec(compile("\n".join(fence.body), where(fence), "exec"), {})


@pytest.mark.parametrize("fence", [fence for fence in FENCES if fence.kind == "toml"], ids=where)
def test_recipes_in_fences_name_options_that_exist(fence: console.Fence) -> None:
    found = tomllib.loads("\n".join(fence.body))
    if found.keys() & Recipe.model_fields.keys() - {"seed", "out"}:
        problems = list(unknown_options(Recipe, found))
        assert not problems, f"{where(fence)}: {', '.join(problems)}"


def unknown_options(section: Any, found: dict[str, Any], at: str = "") -> list[str]:
    """The keys of a part of a recipe that the typed configuration does not have."""
    problems = []
    for key, value in found.items():
        field = section.model_fields.get(key)
        if field is None:
            problems.append(f"{at}{key}")
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                models = sections(field.annotation)
                tried = [unknown_options(model, item, f"{at}{key}.") for model in models]
                problems += min(tried, key=len)
    return problems


def sections(annotation: Any) -> list[Any]:
    """The sections that an annotation is made of, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in sections(part)]


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command of a line, without variables set before it."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;"):
            commands.append([])
        elif commands[-1] or not re.fullmatch(r"\w+=.*", word):
            commands[-1].append(word)
    return [command for command in commands if command]


def unknown(words: list[str]) -> str | None:
    """What a command names that does not exist; None where all of it does."""
    program, arguments = Path(words[0]).name, words[1:]
    if program == "swe-srl":
        return unknown_to_the_cli(arguments)
    if "swe_srl.cli" in arguments:  # python -m, torchrun, accelerate launch
        return unknown_to_the_cli(arguments[arguments.index("swe_srl.cli") + 1 :])
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return next((f"no target {word}" for word in arguments if word not in targets and "=" not in word), None)
    if program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        asked = [name for word in arguments for name in re.findall(r"swe-srl\[(.+?)\]", word)]
        return next((f"no extra {name}" for name in asked if name not in extras), None)
    if program.startswith("python") and arguments and arguments[0].endswith(".py"):
        script = ROOT / arguments[0]
        if not script.is_file():
            return f"no {arguments[0]}"
        source = script.read_text(encoding="utf-8")
        options = [word.partition("=")[0] for word in arguments if word.startswith("--")]
        return next((f"{arguments[0]} has no {option}" for option in options if f'"{option}"' not in source), None)
    if program.startswith("python") and arguments[:2] == ["-m", "pytest"]:
        paths = [word for word in arguments[2:] if word.startswith("tests")]
        if missing := next((f"no {path}" for path in paths if not (ROOT / path).exists()), None):
            return missing
        chosen = arguments[arguments.index("-k") + 1] if "-k" in arguments else ""
        return None if all(chosen in (ROOT / path).read_text(encoding="utf-8") for path in paths if chosen) else f"no {chosen}"
    return None


def unknown_to_the_cli(arguments: list[str]) -> str | None:
    command: Any = typer.main.get_command(app)
    words = list(arguments)
    while hasattr(command, "commands"):
        if not words or words[0].startswith("-"):
            return None if not words or words[0] == "--help" else f"no option {words[0]}"
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return next((f"no option {word}" for word in words if word.startswith("-") and word.partition("=")[0] not in known), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("swe-srl train recipes/sft.toml --out runs/a --set seed=1", None),
        ("swe-srl train recipes/sft.toml --output runs/a", "no option --output"),
        ("swe-srl evaluate task runs/a", "no command task"),
        ("make quick", "no target quick"),
        ("pip install 'swe-srl[gpu]'", "no extra gpu"),
        ("python benchmarks/none.py", "no benchmarks/none.py"),
        ("python benchmarks/fidelity.py --worker 2", "benchmarks/fidelity.py has no --worker"),
        ("python -m pytest tests/none -n 2", "no tests/none"),
        ("python -m pytest tests/cli/test_command_line.py -k nothing_of_the_kind", "no nothing_of_the_kind"),
        ("torchrun --nproc-per-node 2 -m swe_srl.cli train --resum runs/a", "no option --resum"),
        ("A=1 true && swe-srl doctor --jsn", "no option --jsn"),
    ],
)
def test_what_does_not_exist_is_noticed(text: str, problem: str | None) -> None:
    assert next((found for words in simple_commands(text) if (found := unknown(words))), None) == problem


def test_an_option_that_does_not_exist_is_noticed() -> None:
    recipe = tomllib.loads("[sampling.vllm]\nsleep = true\nslep = true\n[[stages]]\nobjective = 'srl'\nclip = 1")
    assert unknown_options(Recipe, recipe) == ["sampling.vllm.slep", "stages.clip"]


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (["│ a │ 11 │"], "│ a  │ 7  │\n", True),
        (["read 12 = kept 12"], "read 12 = lost 12\n", False),
        (["a", "…", "z"], "a\nb\nc\nz\n", True),
        (["a", "…"], "a\n", True),
        (["a"], "a\nb\n", False),
        (["report: …/report.html"], "report: runs/x/report.html\n", True),
        (["┏━━┓", "a"], "\na\n", True),
    ],
)
def test_output_is_compared_without_numbers_and_lines_of_tables(shown: list[str], printed: str, same: bool) -> None:
    assert (console.differs(tuple(shown), printed) is None) is same
