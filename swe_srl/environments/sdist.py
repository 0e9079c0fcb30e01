"""Source releases from the package index, fetched without executing anything of theirs.

Invariant: what is handed on has the digest that the index states, and nothing of it was unpacked or run on the host.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from packaging.utils import canonicalize_name
from pypi_simple import ACCEPT_JSON_PREFERRED, NoSuchProjectError, PyPISimple

from swe_srl.cache import cache_folder
from swe_srl.errors import UserError


def index_url() -> str | None:
    """The package index pip is configured to use on this machine, or None for its default."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def fetch_sdist(requirement: str) -> Path:
    """The archive of a source release `name==version`, from the cache or the index.

    Raises UserError where the index has no such release or cannot be reached.
    """
    name, version = requirement.split("==")
    folder = cache_folder("sdists")
    targets = [folder / f"{canonicalize_name(name)}=={version}{suffix}" for suffix in (".tar.gz", ".zip")]
    if cached := [target for target in targets if target.is_file()]:
        return cached[0]
    url = index_url()
    try:
        with PyPISimple(url, accept=ACCEPT_JSON_PREFERRED) if url else PyPISimple(accept=ACCEPT_JSON_PREFERRED) as client:
            page = client.get_project_page(name)
            found = [package for package in page.packages if package.package_type == "sdist" and package.version == version]
            if not found:
                raise UserError(f"source.sdist: the package index has no source release {requirement}; check name and version")
            package = found[0]
            target: Path = targets[package.filename.endswith(".zip")]
            partial = target.with_name(f"{target.name}.{os.getpid()}.part")
            try:
                client.download_package(package, partial, verify=True, timeout=120)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    except NoSuchProjectError as error:
        raise UserError(f"source.sdist: the package index has no project {name!r} (asked for {requirement})") from error
    except (OSError, ValueError) as error:  # no network, or a page or digest that is not what it should be
        raise UserError(f"source.sdist: could not fetch {requirement}: {error}") from error
    return target
