"""Errors a user can act on.

Invariant: the message names the file, line, task, field or option concerned and says what to do; the command line prints it
without a traceback and exits with status 1.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: bad input, a missing tool, a wrong option."""
