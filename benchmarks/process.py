"""What this process holds in memory, and what it runs on. Nothing but the standard library: environments of peers import it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def forget_peak() -> None:
    """Begin the peak of memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> int:
    """VmRSS, the memory this process holds, or VmHWM, the most it held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was."""
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }
