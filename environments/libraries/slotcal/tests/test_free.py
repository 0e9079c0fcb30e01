from slotcal import Interval, first_fit, free_slots

DAY = Interval(540, 1020)


def test_free_slots_respect_min_length():
    busy = [Interval(540, 600), Interval(620, 700)]
    assert free_slots(DAY, busy) == [Interval(600, 620), Interval(700, 1020)]
    assert free_slots(DAY, busy, min_length=30) == [Interval(700, 1020)]


def test_first_fit_takes_the_first_gap_that_is_long_enough():
    busy = [Interval(560, 600), Interval(660, 700)]
    assert first_fit(DAY, busy, 60) == Interval(600, 660)
    assert first_fit(DAY, [Interval(560, 1000)], 60) is None


def test_first_fit_after():
    assert first_fit(DAY, [Interval(600, 660)], 30, after=640) == Interval(660, 690)


def test_first_fit_step():
    assert first_fit(DAY, [Interval(540, 607)], 30, step=15) == Interval(615, 645)
