"""A machine without a Docker daemon is told what to do; nothing is installed where that cannot work."""

from __future__ import annotations

import os
import platform

import pytest
from docker import DockerClient

from swe_srl.environments import daemon
from swe_srl.environments.base_image import ensure_base_image
from swe_srl.errors import UserError

DEBIAN = {"ID": "debian"}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """No daemon answers, and a program that would be run is noted instead."""
    run: list[list[str]] = []

    def refuse() -> None:
        raise UserError("no daemon")

    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(daemon, "connect", refuse)
    monkeypatch.setattr(daemon, "_run", run.append)
    monkeypatch.setattr(daemon.subprocess, "Popen", lambda argv, **_: run.append(argv))
    return run


def _machine(monkeypatch: pytest.MonkeyPatch, user: int, release: dict[str, str] | None) -> None:
    def read() -> dict[str, str]:
        if release is None:
            raise OSError("no os-release")
        return release

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(platform, "freedesktop_os_release", read)


def test_a_daemon_that_answers_is_used_as_it_is(client: DockerClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "_run", lambda argv: pytest.fail(f"{argv} was run"))
    said: list[str] = []
    daemon.ensure_daemon(said.append)
    assert said == []


def test_a_docker_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent.sock")
    with pytest.raises(UserError) as failure:
        daemon.ensure_daemon(pytest.fail)
    assert str(failure.value) == (
        "DOCKER_HOST is unix:///nonexistent.sock, but no daemon answers there; start it or unset DOCKER_HOST"
    )


@pytest.mark.parametrize(("user", "release"), [(1000, DEBIAN), (0, {"ID": "fedora"}), (0, {}), (0, None)])
def test_elsewhere_the_user_is_told_what_to_do(
    nothing_runs: list[list[str]], monkeypatch: pytest.MonkeyPatch, user: int, release: dict[str, str] | None
) -> None:
    _machine(monkeypatch, user, release)
    with pytest.raises(UserError, match=r"not root on Debian or Ubuntu: install Docker for your system, .*`docker version`"):
        daemon.ensure_daemon(pytest.fail)
    with pytest.raises(UserError, match="missing: mmdebstrap; install them with your system's package manager"):
        daemon.install_packages(["mmdebstrap"], pytest.fail)
    assert nothing_runs == []


@pytest.mark.parametrize("release", [DEBIAN, {"ID": "ubuntu", "ID_LIKE": "debian"}, {"ID": "mint", "ID_LIKE": "ubuntu debian"}])
def test_packages_are_installed_by_root_on_debian(
    nothing_runs: list[list[str]], monkeypatch: pytest.MonkeyPatch, release: dict[str, str]
) -> None:
    _machine(monkeypatch, 0, release)
    said: list[str] = []
    daemon.install_packages(["mmdebstrap"], said.append)
    assert said == ["installing mmdebstrap with apt-get"]
    assert nothing_runs == [
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"],
    ]


def test_a_program_that_fails_is_quoted() -> None:
    with pytest.raises(UserError, match=r"`sh -c echo oops; exit 3` failed with exit status 3:\noops"):
        daemon._run(["sh", "-c", "echo oops; exit 3"])


def test_a_base_image_that_is_there_is_not_made_again(client: DockerClient, base_image: str) -> None:
    ensure_base_image(client, base_image, pytest.fail)
