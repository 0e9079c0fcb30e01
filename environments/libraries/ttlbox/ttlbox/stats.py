"""Counters of what happened in a box."""

from dataclasses import asdict, dataclass


@dataclass
class Stats:
    """Plain counters, all zero in a new box."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    expiries: int = 0
    load_errors: int = 0

    @property
    def hit_ratio(self):
        """Hits among all lookups, 0.0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0

    def as_dict(self):
        """The counters by name, for a log line or a metrics page."""
        return asdict(self)
