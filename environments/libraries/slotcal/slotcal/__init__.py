"""slotcal: a one-day interval calendar."""

from .free import first_fit, free_slots
from .interval import Interval, merge, subtract
from .planner import Booking, BookingError, Calendar, ConflictError, OutsideHoursError
from .text import format_interval, format_time, parse_interval, parse_time

__version__ = "0.4.0"

__all__ = ["Booking", "BookingError", "Calendar", "ConflictError", "Interval"]
__all__ += ["OutsideHoursError", "first_fit", "format_interval", "format_time"]
__all__ += ["free_slots", "merge", "parse_interval", "parse_time", "subtract"]
