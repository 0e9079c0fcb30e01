"""A run is dead only where that is certain."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from swe_srl.environments.runs import RUN_ID, run_state

_MINE = RUN_ID.split(".")


def _id(**changed: str) -> str:
    fields = dict(zip(("pid", "start", "namespace", "boot", "host", "random"), _MINE, strict=True))
    return ".".join((fields | changed).values())


def test_this_run_is_alive() -> None:
    assert _MINE[0] == str(os.getpid())
    assert run_state(RUN_ID) == "alive"
    assert run_state(_id(random="other")) == "alive"


def test_a_process_that_has_ended_is_dead_also_while_nobody_has_waited_for_it() -> None:
    code = "from swe_srl.environments.runs import RUN_ID; print(RUN_ID, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        assert run_state(run_id) == "alive"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert run_state(run_id) == "dead"
        process.wait()
        assert run_state(run_id) == "dead"


def test_a_later_process_with_the_same_number_is_another() -> None:
    assert run_state(_id(start=str(int(_MINE[1]) - 1))) == "dead"


def test_before_this_machine_was_started_again() -> None:
    assert run_state(_id(boot="0" * 32)) == "dead"


@pytest.mark.parametrize(
    "run_id",
    [_id(boot="0" * 32, host="other"), _id(namespace="1"), _id(start=""), "", "12345-ab12cd34", "a.b.c.d.e.f", RUN_ID + ".x"],
    ids=["machine", "namespace", "no start", "empty", "other form", "words", "longer"],
)
def test_what_cannot_be_judged_from_here_is_unknown(run_id: str) -> None:
    assert run_state(run_id) == "unknown"
