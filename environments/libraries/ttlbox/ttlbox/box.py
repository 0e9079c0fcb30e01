"""The cache itself."""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Optional

from .stats import Stats

_DEFAULT = object()
_MISSING = object()


class LoadCycleError(RuntimeError):
    """A factory asked the box for the very key it is loading."""


@dataclass
class Entry:
    """One stored value; ``deadline`` is None if it never expires."""

    value: Any
    ttl: Optional[float]
    deadline: Optional[float]


class TTLBox:
    """A mapping of keys to values that expire.

    ``ttl`` is the life of an entry in seconds unless `set` says otherwise,
    ``max_size`` the number of entries kept, ``clock`` a function that returns
    the time in seconds, and ``on_evict(key, value)`` is called for entries
    that had to leave for lack of room.
    """

    def __init__(self, max_size=None, ttl=None, clock=time.monotonic, on_evict=None):
        if max_size is not None and max_size < 1:
            raise ValueError("max_size must be at least 1")
        self.max_size = max_size
        self.ttl = ttl
        self.stats = Stats()
        self._clock = clock
        self._on_evict = on_evict
        self._entries = OrderedDict()  # least recently used first
        self._loading = set()

    def set(self, key, value, ttl=_DEFAULT):
        """Store ``value``; an entry under the same key is replaced."""
        ttl = self.ttl if ttl is _DEFAULT else ttl
        self._entries.pop(key, None)
        self._make_room()
        self._entries[key] = Entry(value, ttl, self._deadline(ttl))

    def get(self, key, default=None):
        """The value under ``key``, or ``default`` if there is none."""
        entry = self._lookup(key)
        if entry is None:
            self.stats.misses += 1
            return default
        self.stats.hits += 1
        self._entries.move_to_end(key)
        return entry.value

    def get_or_set(self, key, factory, ttl=_DEFAULT):
        """The value under ``key``; on a miss, store and return ``factory()``."""
        value = self.get(key, _MISSING)
        if value is not _MISSING:
            return value
        if key in self._loading:
            raise LoadCycleError(f"{key!r} is already being loaded")
        self._loading.add(key)
        try:
            value = factory()
        except Exception:
            self.stats.load_errors += 1
            raise
        finally:
            self._loading.discard(key)
        self.set(key, value, ttl)
        return value

    def touch(self, key):
        """Start the life of an entry anew; False if there is no such entry."""
        entry = self._lookup(key)
        if entry is None:
            return False
        entry.deadline = self._deadline(entry.ttl)
        self._entries.move_to_end(key)
        return True

    def delete(self, key):
        """Drop an entry; False if there was none."""
        found = self._lookup(key) is not None
        self._entries.pop(key, None)
        return found

    def time_left(self, key):
        """Seconds until an entry expires; None if it never does or is not there."""
        entry = self._lookup(key)
        if entry is None or entry.deadline is None:
            return None
        return entry.deadline - self._clock()

    def purge(self):
        """Drop all expired entries and return how many there were."""
        now = self._clock()
        gone = [
            key
            for key, entry in self._entries.items()
            if entry.deadline is not None and entry.deadline <= now
        ]
        for key in gone:
            del self._entries[key]
        self.stats.expiries += len(gone)
        return len(gone)

    def keys(self):
        """The live keys, the least recently used first."""
        self.purge()
        return list(self._entries)

    def __contains__(self, key):
        return self._lookup(key) is not None

    def __len__(self):
        return len(self.keys())

    def _deadline(self, ttl):
        return None if ttl is None else self._clock() + ttl

    def _lookup(self, key):
        """The live entry under ``key`` or None; an expired one is dropped."""
        entry = self._entries.get(key)
        if entry is None or entry.deadline is None:
            return entry
        if self._clock() >= entry.deadline:
            del self._entries[key]
            self.stats.expiries += 1
            return None
        return entry

    def _make_room(self):
        """Make sure that one more entry fits."""
        if self.max_size is None or len(self._entries) < self.max_size:
            return
        self.purge()
        while len(self._entries) >= self.max_size:
            key, entry = self._entries.popitem(last=False)
            self.stats.evictions += 1
            if self._on_evict is not None:
                self._on_evict(key, entry.value)
