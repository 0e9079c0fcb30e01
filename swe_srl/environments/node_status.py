"""What a node of a cluster holds: containers, images, states, engines.

Invariant: read only; a node without a daemon is a row that says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from swe_srl.environments.docker import SNAPSHOTS, connect, docker_errors
from swe_srl.environments.image import REPOSITORY
from swe_srl.environments.podman import image_names
from swe_srl.environments.runs import RUN_LABEL
from swe_srl.errors import UserError

_ENGINE = b"swe_srl.policy.samplers.serving"
"""The module that an engine beside a trainer runs as."""
_PLACED = (b"ray::NodeEngine", b"ray::PolicyServer")
"""What Ray calls the processes of those that are placed on a node."""


def node_status() -> dict[str, Any]:
    """Of this machine: sandboxes now, task images, snapshots, engines, and what is wrong with its daemon, if anything."""
    engines = {"engines": len(engine_processes())}
    try:
        client = connect()
        with docker_errors("asking the daemon"):
            images = client.api.images()
            names = [name for image in images for name in image_names(image)]
            running = client.containers.list(filters={"label": RUN_LABEL}, sparse=True)
        return {
            "sandboxes": len(running),
            "task_images": sum(name.startswith(f"{REPOSITORY}:") for name in names),
            "snapshots": sum(name.startswith(f"{SNAPSHOTS}:") for name in names),
            **engines,
            "error": None,
        }
    except UserError as error:
        return {"sandboxes": None, "task_images": None, "snapshots": None, **engines, "error": str(error)}


def engine_processes() -> set[int]:
    """Ids of the processes of this machine in which this project has a model to sample from, trainers apart."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().split(b"\0")
            if _ENGINE in words or words[0].startswith(_PLACED):
                found.add(int(file.parent.name))
    return found
