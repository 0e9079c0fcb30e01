"""Where downloads, converted models and build logs are kept: `~/.cache/swe-srl`, or the folder named by SWE_SRL_CACHE."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(*parts: str) -> Path:
    """A folder of the cache, made where it is missing."""
    root = Path(os.environ.get("SWE_SRL_CACHE") or Path.home() / ".cache" / "swe-srl")
    folder = root.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
