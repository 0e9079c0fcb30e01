import pytest

from slotcal import Calendar, ConflictError, Interval, OutsideHoursError


def test_book_and_iterate_in_order():
    day = Calendar()
    day.book("11:00-12:00", "Review")
    day.book("09:00-10:00", "Standup")
    assert [b.title for b in day] == ["Standup", "Review"]


def test_conflict_names_the_other_booking():
    day = Calendar()
    first = day.book("09:00-10:00", "Standup")
    with pytest.raises(ConflictError) as error:
        day.book("09:30-10:30", "Call")
    assert error.value.conflicts == [first]
    assert list(day) == [first]


def test_outside_hours():
    with pytest.raises(OutsideHoursError):
        Calendar().book("08:30-09:30", "Early")


def test_buffer_between_bookings():
    day = Calendar(buffer=10)
    day.book("09:00-10:00", "Standup")
    with pytest.raises(ConflictError):
        day.book("10:05-11:00", "Call")
    day.book("10:10-11:00", "Call")


def test_move_may_overlap_its_own_old_slot():
    day = Calendar()
    booking = day.book("09:00-10:00", "Standup")
    assert day.move(booking.key, "09:30-10:30").title == "Standup"
    assert day.get(booking.key).interval == Interval(570, 630)


def test_cancel_frees_the_slot():
    day = Calendar("09:00-12:00")
    booking = day.book("09:00-11:00", "Workshop")
    assert day.free() == [Interval(660, 720)]
    assert day.first_free(30) == Interval(660, 690)
    day.cancel(booking.key)
    assert day.free() == [Interval(540, 720)]


def test_load_and_render():
    day = Calendar.load("# monday\n09:00-10:00 Standup\n\n11:00-12:00 Team review\n", "09:00-13:00")
    assert day.render().splitlines() == [
        "09:00-10:00  Standup",
        "10:00-11:00  -",
        "11:00-12:00  Team review",
        "12:00-13:00  -",
    ]
    with pytest.raises(ValueError, match="line 2"):
        Calendar.load("09:00-10:00 Standup\nten Call\n")
