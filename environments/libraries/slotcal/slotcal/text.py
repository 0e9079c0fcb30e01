"""Reading and writing times and intervals."""

from __future__ import annotations

import re

from .interval import Interval

_TIME = re.compile(r"(\d{1,2}):(\d{2})")


def parse_time(text: str) -> int:
    """``"09:30"`` to 570. ``24:00`` is accepted as the end of the day."""
    match = _TIME.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a time: {text!r}")
    hours, minutes = int(match[1]), int(match[2])
    total = hours * 60 + minutes
    if minutes > 59 or total > 24 * 60:
        raise ValueError(f"no such time of day: {text!r}")
    return total


def format_time(minutes: int) -> str:
    """570 to ``"09:30"``."""
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def parse_interval(text: str) -> Interval:
    """``"09:00-10:30"`` to an :class:`Interval`; blanks around ``-`` are fine."""
    start, dash, end = text.partition("-")
    if not dash:
        raise ValueError(f"not an interval: {text!r}")
    return Interval(parse_time(start), parse_time(end))


def format_interval(interval: Interval) -> str:
    return f"{format_time(interval.start)}-{format_time(interval.end)}"
