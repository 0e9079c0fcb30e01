"""What all commands have: help, errors, a reader that goes away."""

from __future__ import annotations

import subprocess
import sys

import pytest
from commands import NO_DAEMON, run, start

COMMANDS = [
    *([name] for name in ("doctor", "import", "stats", "export", "replay", "record", "audit")),
    *([name] for name in ("train", "profile", "rollout", "report", "watch", "quickstart")),
    ["export-model"],
    *(["evaluate", name] for name in ("tasks", "steps", "oracle-edit", "localise-edit")),
    *(["env", name] for name in ("docker", "base", "build", "list", "shell", "reap", "prune")),
    ["cluster", "status"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(command: list[str]) -> None:
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert f"Example: swe-srl {' '.join(command)}" in " ".join(out.split())


def test_every_command_is_known_to_these_tests() -> None:
    import click
    import typer

    from swe_srl.cli import app

    def names(command: click.Command) -> list[list[str]]:
        inner = getattr(command, "commands", None)
        return [[]] if inner is None else [[name, *rest] for name, below in inner.items() for rest in names(below)]

    assert sorted(names(typer.main.get_command(app))) == sorted(COMMANDS)


def test_help_is_quick_because_it_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom swe_srl import cli\nsys.argv = ['swe-srl', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'docker', 'pydantic', 'plotly', 'numpy', 'requests', 'atif'}\n"
        "print('LOADED', sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in done.stdout
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_no_command_an_unknown_one_and_an_unknown_option() -> None:
    assert run()[0] == 2
    status, out, err = run("nonsense")
    assert (status, out) == (2, "")
    assert "No such command 'nonsense'" in err
    status, _, err = run("env", "list", "--jsn")
    assert status == 2
    assert "No such option: --jsn" in err


def test_the_oracle_names_the_files_so_that_their_number_is_no_option_of_it() -> None:
    status, out, err = run("evaluate", "oracle-edit", "environments", "--model", "m", "--max-files", "3")
    assert (status, out) == (2, "")
    assert "No such option: --max-files" in err


def test_a_reader_that_stops_reading_gets_no_traceback() -> None:
    process = start("doctor", "--json", env=NO_DAEMON)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 1
