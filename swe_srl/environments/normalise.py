"""What may differ between two honest runs of the same command, each as a named rule.

Invariant: a rule masks only what carries no information about the repository's state (an address, a duration, a temporary
name); raw and normalised comparisons are counted apart, so nothing is hidden by a rule. Order of lines is never changed here:
see `unordered`, which is counted apart again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"


@dataclass(frozen=True, slots=True)
class Rule:
    """One named difference that is masked in both texts before they are compared."""

    name: str
    why: str
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]

    def apply(self, text: str) -> str:
        """The text with every match replaced."""
        return self.pattern.sub(self.replacement, text)


def _rule(name: str, why: str, pattern: str, replacement: str | Callable[[re.Match[str]], str], flags: int = 0) -> Rule:
    return Rule(name, why, re.compile(pattern, flags), replacement)


def _listing(match: re.Match[str]) -> str:
    # A regular file's size says something about its content and is kept; a folder's does not.
    size = "SIZE" if match["mode"].startswith("d") else match["size"]
    return f"{match['mode']} {match['owner']} {size} DATE "


RULES: tuple[Rule, ...] = (
    _rule("line endings", "a terminal ends lines with CR LF, a pipe with LF", r"\r+\n", "\n"),
    _rule("trailing blanks", "a terminal or a template may add or drop blanks at the end of the text", r"\s+\Z", ""),
    _rule("addresses", "memory addresses change with every process", r"\b0x[0-9a-fA-F]{6,16}\b", "0xADDRESS"),
    _rule(
        "durations",
        "how long something took",
        r"\b\d+(?:\.\d+)? ?(?:s|ms|us|seconds?|secs?)\b(?: \(\d+:\d\d:\d\d\))?|\b(?:real|user|sys)\s+\d+m[\d.]+s",
        "DURATION",
    ),
    _rule("duration padding", "the banner around a test run's duration is as long as the duration is not", r"={3,}", "==="),
    _rule(
        "clock times", "the moment a command ran", r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?[+-]\d{4})?\b", "TIME"
    ),
    _rule("temporary names", "names drawn at random below /tmp", r"/tmp/(?:[\w.-]*[-_]\w{8}|tmp\w{6,10})\b", "/tmp/NAME"),
    _rule("test folders", "pytest numbers its temporary folders", r"pytest-of-\w+/pytest-\d+", "pytest-of-USER/pytest-N"),
    _rule(
        "virtual environments",
        "where the interpreter and its library lie",
        r"(?:/opt/miniconda3/envs/testbed|/opt/miniconda3|/opt/venv|/testbed/\.venv)(?=/)|/usr(?:/local)?(?=/lib/python3)",
        "VENV",
    ),
    _rule("interpreter versions", "the patch level of Python", r"\b(Python |python)(3\.\d+)(?:\.\d+)+\b", r"\1\2"),
    _rule(
        "git hashes",
        "names of commits depend on who made them and when",
        r"\b(commit |\+g|\+/|at |\bg)[0-9a-f]{7,40}\b",
        r"\1HASH",
    ),
    _rule(
        "git abbreviations",
        "how many digits of a blob's hash git shows depends on the size of the repository's history; seven are compared",
        r"^(index [0-9a-f]{7})[0-9a-f]*(\.\.[0-9a-f]{7})[0-9a-f]*",
        r"\1\2",
        re.MULTILINE,
    ),
    _rule(
        "git logs",
        "the same, one a line; a number alone is a size, not a hash",
        r"^(?=\d*[a-f])[0-9a-f]{7,12}(?= )",
        "HASH",
        re.MULTILINE,
    ),
    _rule(
        "listing metadata",
        "link counts, times, and the sizes of folders in `ls -l`",
        r"^(?P<mode>[dlcbps-][rwxsStT-]{9})[.+@]? +\d+ (?P<owner>\S+ +\S+) +(?P<size>\d+) "
        rf"+(?:{_MONTH} +\d+ +(?:\d\d:\d\d|\d{{4}})|\d{{4}}-\d\d-\d\d[ \d:.+-]*|TIME) ",
        _listing,
        re.MULTILINE,
    ),
    _rule("listing totals", "blocks used, as `ls -l` adds them up", r"^total \d+$", "total N", re.MULTILINE),
)


def normalise(text: str) -> str:
    """The text with every rule applied, in the order of `RULES`."""
    for rule in RULES:
        text = rule.apply(text)
    return text


def unordered(text: str) -> str:
    """The lines sorted: for output whose order the file system decides (`find`, `grep -r`)."""
    return "\n".join(sorted(text.splitlines()))
