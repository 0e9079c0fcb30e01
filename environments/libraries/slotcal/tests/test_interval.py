import pytest

from slotcal import Interval, merge, subtract


def test_intervals_are_half_open():
    assert not Interval(0, 60).overlaps(Interval(60, 90))
    assert Interval(0, 61).overlaps(Interval(60, 90))
    with pytest.raises(ValueError):
        Interval(60, 60)


def test_merge_joins_and_sorts():
    items = [Interval(50, 60), Interval(0, 30), Interval(10, 20), Interval(30, 40)]
    assert merge(items) == [Interval(0, 40), Interval(50, 60)]
    assert merge(items, gap=10) == [Interval(0, 60)]


def test_subtract_cuts_holes():
    holes = [Interval(80, 200), Interval(-5, 10), Interval(20, 30)]
    assert subtract(Interval(0, 100), holes) == [Interval(10, 20), Interval(30, 80)]
    assert subtract(Interval(0, 100), [Interval(0, 100)]) == []
