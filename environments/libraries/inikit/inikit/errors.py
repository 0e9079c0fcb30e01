"""Exceptions raised by inikit."""


class InikitError(Exception):
    """Base class of every error this library raises."""


class ParseError(InikitError):
    """A line that cannot be read; knows the source and the line number."""

    def __init__(self, message, source, lineno):
        super().__init__(f"{source}:{lineno}: {message}")
        self.source = source
        self.lineno = lineno


class MissingError(InikitError):
    """A setting that does not exist was asked for without a default."""


class InterpolationError(InikitError):
    """A ``${...}`` reference that leads nowhere or back to itself."""


class ValueFormatError(InikitError, ValueError):
    """A value that cannot be converted to the wanted type."""
