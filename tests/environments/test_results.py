"""A result is in the file completely or not at all; what ended is known again, what did not is to be run again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from swe_srl.environments.fidelity import TrajectoryReplay, compare
from swe_srl.environments.results import FILE, Results, replay_key
from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Observation
from swe_srl.trajectories.model import Trajectory

STEP = compare(0, Observation("", "a", 0), Observation("", "b", 0), 0.5)
DONE = TrajectoryReplay("a", "t", (STEP,), 1.0, True)
FAILED = dataclasses.replace(DONE, id="b", error="gone")


def _write(folder: Path, **replays: TrajectoryReplay) -> bytes:
    with Results(folder) as results:
        for key, replay in replays.items():
            results.append(key, replay)
    return (folder / FILE).read_bytes()


def _finished(folder: Path) -> dict[str, TrajectoryReplay]:
    with Results(folder) as results:
        return results.finished


def test_what_reached_its_end_is_known_again(tmp_path: Path) -> None:
    _write(tmp_path / "new", one=DONE, two=FAILED)
    assert _finished(tmp_path / "new") == {"one": DONE}
    assert len((tmp_path / "new" / FILE).read_bytes().splitlines()) == 2, "what failed is kept too"


def test_the_last_result_of_a_replay_counts(tmp_path: Path) -> None:
    later = dataclasses.replace(DONE, seconds=2.0)
    _write(tmp_path, one=DONE)
    _write(tmp_path, one=later)
    assert _finished(tmp_path) == {"one": later}


@pytest.mark.parametrize("rest", [b"{", b'{"key": "two", "steps"', b"\xff"])
def test_a_line_cut_off_by_a_kill_is_removed(tmp_path: Path, rest: bytes) -> None:
    written = _write(tmp_path, one=DONE)
    (tmp_path / FILE).write_bytes(written + rest)
    assert _finished(tmp_path) == {"one": DONE}
    assert (tmp_path / FILE).read_bytes() == written


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b'{"key": "x"}\n', b"\xff\n"])
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path: Path, line: bytes) -> None:
    written = _write(tmp_path, one=DONE) + line
    (tmp_path / FILE).write_bytes(written)
    with pytest.raises(UserError, match=r"replay.jsonl:2: not a result of a replay: .*; name another --out, or pass --overwrite"):
        Results(tmp_path)
    assert (tmp_path / FILE).read_bytes() == written
    with Results(tmp_path, overwrite=True) as results:
        assert results.finished == {}
    assert (tmp_path / FILE).read_bytes() == b""


def test_two_replays_do_not_write_at_once(tmp_path: Path) -> None:
    with Results(tmp_path), pytest.raises(UserError, match="another replay is writing there; wait for it or name another --out"):
        Results(tmp_path)
    Results(tmp_path).__exit__()


def test_a_result_that_does_not_fit_leaves_the_file_as_it_was(small_disk: Path) -> None:
    large = dataclasses.replace(DONE, steps=(dataclasses.replace(STEP, replayed="x" * 90_000),))
    with Results(small_disk) as results:
        results.append("one", DONE)
        before = (small_disk / FILE).read_bytes()
        with pytest.raises(OSError, match="No space left on device"):
            results.append("two", large)
        assert (small_disk / FILE).read_bytes() == before
        results.append("three", DONE)
    assert [json.loads(line)["key"] for line in (small_disk / FILE).read_bytes().splitlines()] == ["one", "three"]


def test_a_key_is_content_image_and_options() -> None:
    run = Trajectory("a", "t", "swe-agent", "test", ())
    keys = [
        replay_key(run, "image", [1]),
        replay_key(dataclasses.replace(run, id="b"), "image", [1]),
        replay_key(run, "other", [1]),
        replay_key(run, "image", [2]),
    ]
    assert len(set(keys)) == 4
    assert replay_key(dataclasses.replace(run, model="m"), "image", [1]) == keys[0]
