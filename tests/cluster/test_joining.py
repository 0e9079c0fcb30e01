"""Joining a Ray cluster: what fails now and then is tried again, and what stays is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import ray

from swe_srl.cluster.ray import RayCluster
from swe_srl.errors import UserError

NOW_AND_THEN = ConnectionError("Traceback (most recent call last):\n  …\nInitialization failure from server: It failed")


@pytest.fixture
def joining(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Joins a cluster that answers with these errors, one an attempt; the addresses that were tried."""

    def join(*errors: Exception) -> list[Any]:
        left, tried = list(errors), []

        def init(address: Any = None, **options: Any) -> None:
            tried.append(address)
            if left:
                raise left.pop(0)

        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", init)
        try:
            RayCluster("ray://head:10001", print)
        except UserError as error:
            tried.append(str(error))
        return tried

    return join


def test_a_head_that_failed_to_begin_its_part_is_asked_again(joining: Callable[..., list[Any]]) -> None:
    assert joining(NOW_AND_THEN, NOW_AND_THEN) == ["ray://head:10001"] * 3


def test_after_three_times_it_is_given_up_with_the_last_line_of_the_reason(joining: Callable[..., list[Any]]) -> None:
    reason = "no Ray cluster answers at ray://head:10001: Initialization failure from server: It failed"
    assert joining(*[NOW_AND_THEN] * 5) == [*["ray://head:10001"] * 3, reason]


@pytest.mark.parametrize("error", [ConnectionError("nobody listens"), ValueError("nobody listens")])
def test_other_errors_are_not_waited_out(joining: Callable[..., list[Any]], error: Exception) -> None:
    assert joining(error) == ["ray://head:10001", "no Ray cluster answers at ray://head:10001: nobody listens"]
