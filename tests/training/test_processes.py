"""What several processes are refused, and what one is told of another."""

import signal

import pytest

from swe_srl.config import DataSection, ModelSection, Recipe, SftStage
from swe_srl.config.model import LoraSection
from swe_srl.errors import UserError
from swe_srl.training.devices import check_several, one_process
from swe_srl.training.interrupt import Interrupt, StopRequested
from swe_srl.training.processes import Processes

STAGE = SftStage(objective="sft", updates=1, lr=1e-3)
RECIPE = Recipe(model=ModelSection(name="m"), data=DataSection(train=["t"]), stages=[STAGE])


def test_what_several_processes_cannot_do_is_refused_by_name() -> None:
    recipe = RECIPE.model_copy(update={"model": ModelSection(name="m", lora=LoraSection(dropout=0.1))})
    check_several(recipe, 1)
    with pytest.raises(UserError, match=r"model\.lora\.dropout draws in each process for itself: this is one of 2"):
        check_several(recipe, 2)
    check_several(RECIPE, 2)


def test_a_command_for_one_process_is_refused_to_several(monkeypatch: pytest.MonkeyPatch) -> None:
    one_process("profile")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="profile takes one process; this one was launched with 3"):
        one_process("profile")


def test_a_signal_to_another_process_stops_this_one() -> None:
    others = iter([0, int(signal.SIGTERM)])
    interrupt = Interrupt(lambda number: pytest.fail("nothing came here"), lambda mine: max(mine, next(others)))
    interrupt.check()
    with pytest.raises(StopRequested):
        interrupt.check()
    assert interrupt.requested is signal.SIGTERM


def test_only_errors_of_communication_are_about_another_process() -> None:
    processes = Processes(rank=1, count=2, seconds=30)
    with pytest.raises(UserError) as told, processes.waiting("the samples of a batch"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234\nmore")
    assert str(told.value) == (
        "process 1 of 2 waited for the samples of a batch, and another process is gone or took more than 30 seconds "
        "(model.process_timeout): [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234"
    )
    with pytest.raises(RuntimeError, match="out of memory"), processes.waiting("the samples of a batch"):
        raise RuntimeError("out of memory")
