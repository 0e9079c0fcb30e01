"""Docker set-up on a machine that has none.

Invariant: a daemon that answers is used as it is. One is installed and started only as root on Debian or Ubuntu, and every step
of it is said; anywhere else the user is told what to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from swe_srl.environments.docker import connect
from swe_srl.errors import UserError

DAEMON_LOG = Path("/var/log/swe-srl-dockerd.log")


def ensure_daemon(say: Callable[[str], None]) -> None:
    """Return once a Docker daemon answers. Raises UserError with what to do where none can be had."""
    try:
        connect()
        return
    except UserError:
        pass
    if os.environ.get("DOCKER_HOST"):
        raise UserError(
            f"DOCKER_HOST is {os.environ['DOCKER_HOST']}, but no daemon answers there; start it or unset DOCKER_HOST"
        )
    if os.geteuid() != 0 or not _is_debian():
        raise UserError(
            "no Docker daemon answers and this is not root on Debian or Ubuntu: install Docker for your system, start its "
            "daemon, check with `docker version`, then run this again"
        )
    if not shutil.which("dockerd"):
        say("no Docker daemon answers: installing docker.io with apt-get")
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "docker.io"])
    say(f"starting dockerd (log: {DAEMON_LOG})")
    with DAEMON_LOG.open("ab") as log:
        daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    for _ in range(120):
        time.sleep(0.5)
        try:
            connect()
            return
        except UserError:
            if daemon.poll() is not None:
                break
    raise UserError(f"dockerd did not start; the end of {DAEMON_LOG}:\n{_tail(DAEMON_LOG)}")


def install_packages(packages: list[str], say: Callable[[str], None]) -> None:
    """Install Debian packages. Raises UserError where this is not root on Debian or Ubuntu."""
    if os.geteuid() != 0 or not _is_debian():
        raise UserError(f"missing: {', '.join(packages)}; install them with your system's package manager")
    say(f"installing {', '.join(packages)} with apt-get")
    _run(["apt-get", "update", "-qq"])
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])


def _is_debian() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return "debian" in (release.get("ID", ""), *release.get("ID_LIKE", "").split())


def _run(argv: list[str]) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise UserError(
            f"`{' '.join(argv)}` failed with exit status {done.returncode}:\n{done.stdout.decode(errors='replace')[-2000:]}"
        )


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
