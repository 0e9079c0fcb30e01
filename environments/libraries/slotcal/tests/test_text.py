import pytest

from slotcal import Interval, format_interval, parse_interval, parse_time


def test_interval_round_trip():
    assert parse_interval("9:00 - 10:30") == Interval(540, 630)
    assert format_interval(Interval(540, 1440)) == "09:00-24:00"


@pytest.mark.parametrize("text", ["9", "09:60", "24:01", "nine"])
def test_bad_times(text):
    with pytest.raises(ValueError):
        parse_time(text)
