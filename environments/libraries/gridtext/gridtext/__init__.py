"""gridtext: render rows of cells as a text table."""

from .csvtext import parse_csv, to_csv
from .layout import display_width, pad, truncate, wrap
from .styles import ASCII, BOX, PLAIN, Style
from .table import Column, Table

__version__ = "1.2.0"

__all__ = ["ASCII", "BOX", "Column", "PLAIN", "Style", "Table", "display_width"]
__all__ += ["pad", "parse_csv", "to_csv", "truncate", "wrap"]
