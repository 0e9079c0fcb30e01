"""The daemon's own exec, as builds use it: the output of a command is whole whenever it comes."""

from __future__ import annotations

import http.client
import time

import pytest

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.exec import Frames, run_in


def test_the_last_output_of_a_slow_command_is_not_lost(sandbox: DockerSandbox) -> None:
    """Ends that fall between two looks of the host at the command."""
    for milliseconds in range(200, 320, 10):
        result = run_in(sandbox.container, ["bash", "-c", f"sleep 0.{milliseconds}; seq 3"])
        assert (result.output, result.exit_code) == (b"1\n2\n3\n", 0)


def test_output_that_comes_with_the_head_of_the_answer_is_not_lost(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where a quick command has ended before the daemon's answer is read."""
    begin = http.client.HTTPResponse.begin

    def late(response: http.client.HTTPResponse) -> None:
        time.sleep(0.3)
        begin(response)

    monkeypatch.setattr(http.client.HTTPResponse, "begin", late)
    result = run_in(sandbox.container, ["seq", "3"])
    assert (result.output, result.exit_code) == (b"1\n2\n3\n", 0)


def test_output_beyond_the_cap_is_counted(sandbox: DockerSandbox) -> None:
    result = run_in(sandbox.container, ["bash", "-c", "head -c 250000 /dev/zero; exit 4"], output_bytes=1000)
    assert (result.output, result.exit_code, result.dropped_bytes) == (bytes(1000), 4, 249_000)


def test_a_deadline_ends_the_waiting_only(sandbox: DockerSandbox) -> None:
    result = run_in(sandbox.container, ["bash", "-c", "echo before; sleep 60"], deadline=time.monotonic() + 1)
    assert (result.output, result.exit_code) == (b"before\n", None)


def test_standard_input_reaches_the_command_whole(sandbox: DockerSandbox) -> None:
    result = run_in(sandbox.container, ["wc", "-c"], stdin=bytes(3_000_000))
    assert (result.output, result.exit_code) == (b"3000000\n", 0)


def test_frames_cut_anywhere() -> None:
    data = b"\1\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\2ab"
    for size in range(1, len(data) + 1):
        frames = Frames()
        found = [frame for start in range(0, len(data), size) for frame in frames.feed(data[start : start + size])]
        assert found == [(1, b"one"), (2, b""), (1, b"ab")]
