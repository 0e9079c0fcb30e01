from collections.abc import Iterator

import pytest

from swe_srl.errors import UserError
from swe_srl.training.filtering import Filled, fill_batch, is_informative, usable


def test_the_threshold_is_the_population_std_and_is_strict() -> None:
    # [0, 1] has population std exactly 0.5; the sample std would be 0.707.
    assert is_informative([0.0, 1.0], 0.49)
    assert not is_informative([0.0, 1.0], 0.5)
    assert not is_informative([0.4, 0.4], 0.0)
    assert not is_informative([], 0.0)


class Source:
    """Hands out groups in order and remembers how many were asked for."""

    def __init__(self, *groups: list[float]) -> None:
        self.groups: Iterator[list[float]] = iter(groups)
        self.asked: list[int] = []

    def __call__(self, count: int) -> list[list[float]]:
        self.asked.append(count)
        return [next(self.groups) for _ in range(count)]


GOOD, FLAT = [0.0, 1.0], [1.0, 1.0]


def fill(source: Source, size: int, max_refills: int):  # type: ignore[no-untyped-def]
    return fill_batch(source, lambda group: group, size=size, epsilon=0.1, max_refills=max_refills)


def test_refills_ask_for_exactly_what_is_missing() -> None:
    source = Source(GOOD, FLAT, FLAT, FLAT, GOOD, GOOD)
    filled = fill(source, 3, 9)
    assert source.asked == [3, 2, 1]
    assert (len(filled.kept), len(filled.dropped), filled.refills) == (3, 3, 2)


def test_a_full_first_draw_needs_no_refill() -> None:
    source = Source(GOOD, GOOD)
    assert fill(source, 2, 4).refills == 0
    assert source.asked == [2]


@pytest.mark.parametrize("cap", [0, 2])
def test_the_cap_leaves_the_batch_short(cap: int) -> None:
    source = Source(*[FLAT] * 6)
    filled = fill(source, 2, cap)
    assert (filled.kept, len(filled.dropped), filled.refills, source.asked) == ([], 2 * (cap + 1), cap, [2] * (cap + 1))


def test_a_full_batch_is_used_whatever_is_to_be_done_about_short_ones() -> None:
    filled = Filled(kept=[GOOD, GOOD], dropped=[FLAT])
    assert [usable(filled, size=2, exhausted=what) for what in ("use", "skip", "stop")] == [[GOOD, GOOD]] * 3  # type: ignore[arg-type]


def test_a_short_batch_is_used_skipped_or_stops_the_run() -> None:
    filled = Filled(kept=[GOOD], dropped=[FLAT] * 5, refills=4)
    assert usable(filled, size=2, exhausted="use") == [GOOD]
    assert usable(filled, size=2, exhausted="skip") == []
    with pytest.raises(
        UserError, match="only 1 of 6 groups differ in their rewards, and 2 were wanted, after 4 refills: raise"
    ):
        usable(filled, size=2, exhausted="stop")
