"""What every section of a recipe has in common.

Invariant: immutable, strictly typed, without unknown options.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a recipe: immutable, strictly typed, without unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
