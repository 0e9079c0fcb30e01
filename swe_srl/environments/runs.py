"""Whose container is it, and is that process still alive? Every container and temporary image carries its run as a label.

Invariant: a run is taken for dead only where that is certain: its process has ended on this very kernel and in this very
process namespace, or the machine has been started again since. What another machine or another container's trainer made
is `unknown`, and so is a label of any other form.
"""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from pathlib import Path
from typing import Literal

RUN_LABEL = "swe-srl.run"
"""Every container carries it: the id of the run that made it."""


def run_state(run_id: str) -> Literal["alive", "dead", "unknown"]:
    """Whether the process that made this id still runs."""
    mine, fields = RUN_ID.split("."), run_id.split(".")
    if len(fields) != len(mine) or not fields[0].isdigit() or "" in (*fields, *mine):
        return "unknown"
    pid, start, namespace, boot, host, _ = fields
    if boot != mine[3]:
        return "dead" if host == mine[4] else "unknown"
    if namespace != mine[2]:
        return "unknown"
    return "alive" if _start_time(int(pid)) == start else "dead"


def _start_time(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty where there is none or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _run_id() -> str:
    """process.start time.process namespace.boot.machine.random; a part that this system does not tell is empty."""
    try:
        namespace = str(os.stat("/proc/self/ns/pid").st_ino)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:
        namespace = boot = ""
    machine = Path("/etc/machine-id")
    name = platform.node() + (machine.read_text().strip() if machine.is_file() else "")
    host = hashlib.sha256(name.encode()).hexdigest()[:12]
    return ".".join([str(os.getpid()), _start_time(os.getpid()), namespace, boot, host, uuid.uuid4().hex[:8]])


RUN_ID = _run_id()
