"""Base images without a registry: a minimal Debian with Python and git, made by mmdebstrap or debootstrap.

Invariant: an image is made only when no image of that name exists; its name says what it holds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from swe_srl.environments.daemon import install_packages
from swe_srl.environments.docker import docker_errors
from swe_srl.errors import UserError


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image this project can make by itself."""

    tag: str
    suite: str
    """Debian release."""
    python: str


BASE_IMAGES = {
    "py311": BaseImage("swe-srl/base:py311", "bookworm", "3.11"),
    "py39": BaseImage("swe-srl/base:py39", "bullseye", "3.9"),
}
_PACKAGES = ["python3", "python3-venv", "python3-pip", "git", "ca-certificates"]


def has_image(client: docker.DockerClient, reference: str) -> bool:
    """Whether the daemon holds an image of that name."""
    with docker_errors(f"image {reference}"):
        try:
            client.images.get(reference)
        except ImageNotFound:
            return False
    return True


def ensure_base_image(client: docker.DockerClient, reference: str, say: Callable[[str], None]) -> None:
    """Return once the daemon holds the image: as it is, made here, or pulled from a registry. Raises UserError otherwise."""
    if has_image(client, reference):
        return
    own = next((base for base in BASE_IMAGES.values() if base.tag == reference), None)
    if own is not None:
        make_base_image(client, own, say)
        return
    say(f"pulling {reference}")
    try:
        client.images.pull(reference)
    except Exception as error:
        known = ", ".join(base.tag for base in BASE_IMAGES.values())
        raise UserError(
            f"base image {reference} is not here and could not be pulled ({error}); pull or build it, or use one of {known}"
        ) from error


def make_base_image(client: docker.DockerClient, base: BaseImage, say: Callable[[str], None]) -> None:
    """Build a root file system of the base's Debian release and import it. Takes about half a minute."""
    if not shutil.which("mmdebstrap") and not shutil.which("debootstrap"):
        install_packages(["mmdebstrap"], say)
    say(f"making {base.tag} (Debian {base.suite}, Python {base.python})")
    with tempfile.TemporaryDirectory(prefix="swe-srl-base-") as folder:
        archive = Path(folder) / "root.tar"
        if shutil.which("mmdebstrap"):
            packages = ",".join(_PACKAGES)
            _run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", base.suite, str(archive)], base)
        else:
            root = Path(folder) / "root"
            _run(["debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", base.suite, str(root)], base)
            with tarfile.open(archive, "w") as tar:
                tar.add(root, arcname=".")
        repository, tag = base.tag.split(":")
        with docker_errors(f"image {base.tag}"), archive.open("rb") as file:
            client.api.import_image_from_data(file, repository=repository, tag=tag)


def _run(argv: list[str], base: BaseImage) -> None:
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        output, _ = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if process.returncode != 0:
        raise UserError(
            f"making {base.tag} failed: `{' '.join(argv[:2])} …` ended with status {process.returncode}; it needs root and a "
            f"reachable Debian mirror. Its last lines:\n{output.decode(errors='replace')[-1500:]}"
        )
