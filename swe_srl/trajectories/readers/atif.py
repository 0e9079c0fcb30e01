"""Reads ATIF 1.0 to 1.8, this project's own files and other agents'.

Invariant: a file this project wrote comes back as the trajectory that was written, whatever format that was read from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.trajectories.atif import from_atif, is_atif
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.reader import Origin


class AtifReader:
    """ATIF documents."""

    name: str = "atif"

    def detect(self, head: object) -> bool:
        """True for a document whose schema version is one that is read."""
        return is_atif(head)

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        return from_atif(document, origin)
