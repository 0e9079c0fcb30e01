import pytest

from ttlbox import LoadCycleError, ManualClock, TTLBox


@pytest.fixture
def clock():
    return ManualClock(start=100.0)


def test_get_and_default(clock):
    box = TTLBox(clock=clock)
    box.set("a", None)
    assert box.get("a", "other") is None
    assert box.get("b", "other") == "other"
    assert "a" in box and "b" not in box


def test_entries_expire(clock):
    box = TTLBox(ttl=10, clock=clock)
    box.set("a", 1)
    box.set("b", 2, ttl=30)
    box.set("c", 3, ttl=None)
    clock.advance(20)
    assert box.get("a") is None
    assert box.keys() == ["b", "c"]
    assert box.time_left("b") == 10
    assert box.time_left("c") is None


def test_purge_counts(clock):
    box = TTLBox(ttl=1, clock=clock)
    box.set("a", 1)
    box.set("b", 2, ttl=5)
    clock.advance(2)
    assert box.purge() == 1
    assert box.stats.expiries == 1
    assert len(box) == 1


def test_touch_starts_anew(clock):
    box = TTLBox(ttl=10, clock=clock)
    box.set("a", 1)
    clock.advance(8)
    assert box.touch("a")
    clock.advance(8)
    assert box.get("a") == 1
    assert box.delete("a")
    assert not box.touch("a")


def test_least_recently_used_leaves():
    gone = []
    box = TTLBox(max_size=2, on_evict=lambda key, value: gone.append((key, value)))
    box.set("a", 1)
    box.set("b", 2)
    box.get("a")
    box.set("c", 3)
    assert gone == [("b", 2)]
    assert box.keys() == ["a", "c"]


def test_replacing_needs_no_room():
    box = TTLBox(max_size=2)
    box.set("a", 1)
    box.set("b", 2)
    box.set("a", 3)
    assert box.keys() == ["b", "a"]
    assert box.stats.evictions == 0


def test_get_or_set_calls_the_factory_once():
    box = TTLBox()
    calls = []
    for _ in range(2):
        assert box.get_or_set("a", lambda: calls.append(1)) is None
    assert calls == [1]


def test_factory_error_reaches_the_caller():
    box = TTLBox()
    with pytest.raises(ZeroDivisionError):
        box.get_or_set("a", lambda: 1 / 0)
    assert "a" not in box
    assert box.stats.load_errors == 1


def test_load_cycle():
    box = TTLBox()
    with pytest.raises(LoadCycleError):
        box.get_or_set("a", lambda: box.get_or_set("a", int))
