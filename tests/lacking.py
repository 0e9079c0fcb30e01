"""What a test does where the machine lacks what it needs. In a module of its own: `conftest` is the name of several."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(reason: str) -> NoReturn:
    """Skip the test; where CI is set, fail it."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; in CI this must not be skipped", pytrace=False)
    pytest.skip(reason)
