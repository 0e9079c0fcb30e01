"""Layered settings files in a small INI-like format."""

from .errors import InikitError, InterpolationError, MissingError, ParseError, ValueFormatError
from .settings import Settings, load, loads

__all__ = [
    "InikitError",
    "InterpolationError",
    "MissingError",
    "ParseError",
    "Settings",
    "ValueFormatError",
    "load",
    "loads",
]
