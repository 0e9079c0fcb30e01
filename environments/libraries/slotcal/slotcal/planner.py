"""Bookings within the opening hours of one day."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterator, Optional, Union

from .free import first_fit, free_slots
from .interval import Interval, subtract
from .text import format_interval, parse_interval

When = Union[Interval, str]


class BookingError(Exception):
    """A booking was refused."""


class OutsideHoursError(BookingError):
    """The interval is not inside the opening hours."""


class ConflictError(BookingError):
    """The interval is too close to bookings that exist (see ``conflicts``)."""

    def __init__(self, interval: Interval, conflicts: list[Booking]):
        names = ", ".join(booking.title for booking in conflicts)
        super().__init__(f"{format_interval(interval)} conflicts with {names}")
        self.conflicts = conflicts


@dataclass(frozen=True)
class Booking:
    key: int
    interval: Interval
    title: str


class Calendar:
    """Bookings of one day, at least ``buffer`` minutes apart."""

    def __init__(self, hours: When = "09:00-17:00", buffer: int = 0):
        self.hours = _interval(hours)
        self.buffer = buffer
        self._bookings: dict[int, Booking] = {}
        self._next_key = 1

    @classmethod
    def load(cls, text: str, hours: When = "09:00-17:00", buffer: int = 0) -> Calendar:
        """Read lines such as ``09:00-10:30 Standup``; ``#`` starts a comment line."""
        calendar = cls(hours, buffer)
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            when, _, title = line.partition(" ")
            try:
                calendar.book(when, title.strip())
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
        return calendar

    def __iter__(self) -> Iterator[Booking]:
        """Bookings in order of their start."""
        return iter(sorted(self._bookings.values(), key=lambda b: b.interval))

    def get(self, key: int) -> Booking:
        return self._bookings[key]

    def book(self, when: When, title: str) -> Booking:
        """Add a booking, or raise a :class:`BookingError` and change nothing."""
        interval = _interval(when)
        self._check(interval)
        booking = Booking(self._next_key, interval, title)
        self._bookings[booking.key] = booking
        self._next_key += 1
        return booking

    def cancel(self, key: int) -> Booking:
        """Remove a booking and return it."""
        return self._bookings.pop(key)

    def move(self, key: int, when: When) -> Booking:
        """Give a booking another interval; it keeps its key and title.

        The new interval may overlap the booking's own old one.
        """
        booking = self._bookings[key]
        interval = _interval(when)
        self._check(interval, ignore=key)
        self._bookings[key] = replace(booking, interval=interval)
        return self._bookings[key]

    def conflicts(self, when: When, ignore: Optional[int] = None) -> list[Booking]:
        """Bookings that ``when`` would overlap or come too close to."""
        wanted = _interval(when).pad(self.buffer)
        return [b for b in self if b.key != ignore and b.interval.overlaps(wanted)]

    def free(self, min_length: int = 1) -> list[Interval]:
        """The intervals that can still be booked."""
        taken = [b.interval.pad(self.buffer) for b in self]
        return free_slots(self.hours, taken, min_length)

    def first_free(
        self, length: int, after: Optional[int] = None, step: int = 1
    ) -> Optional[Interval]:
        """The earliest interval of ``length`` minutes that can be booked."""
        taken = [b.interval.pad(self.buffer) for b in self]
        return first_fit(self.hours, taken, length, after, step)

    def render(self) -> str:
        """The day as text, one line per booking or gap between bookings."""
        rows = [(b.interval, b.title) for b in self]
        gaps = subtract(self.hours, [b.interval for b in self])
        rows += [(gap, "-") for gap in gaps]
        return "\n".join(f"{format_interval(i)}  {text}" for i, text in sorted(rows))

    def _check(self, interval: Interval, ignore: Optional[int] = None) -> None:
        if not self.hours.contains(interval):
            raise OutsideHoursError(
                f"{format_interval(interval)} is not within {format_interval(self.hours)}"
            )
        found = self.conflicts(interval, ignore)
        if found:
            raise ConflictError(interval, found)


def _interval(when: When) -> Interval:
    return parse_interval(when) if isinstance(when, str) else when
