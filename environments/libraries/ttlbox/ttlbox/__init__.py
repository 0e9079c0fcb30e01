"""An in-memory cache with expiry and a size limit."""

from .box import LoadCycleError, TTLBox
from .clock import ManualClock
from .decorator import cached
from .stats import Stats

__all__ = ["LoadCycleError", "ManualClock", "Stats", "TTLBox", "cached"]
