import pytest

from ttlbox import ManualClock, Stats, TTLBox


def test_hits_and_misses():
    box = TTLBox()
    assert box.stats.hit_ratio == 0.0
    box.set("a", 1)
    for key in "aaab":
        box.get(key)
    assert box.stats.hit_ratio == 0.75


def test_as_dict():
    counters = Stats(hits=2, evictions=1).as_dict()
    assert (counters["hits"], counters["misses"]) == (2, 0)


def test_manual_clock():
    clock = ManualClock(5)
    clock.advance(2.5)
    assert clock() == 7.5
    with pytest.raises(ValueError):
        clock.advance(-1)
