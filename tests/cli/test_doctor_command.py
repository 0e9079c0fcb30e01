"""doctor, with and without a daemon."""

from __future__ import annotations

from commands import NO_DAEMON, one_object, run
from docker import DockerClient


def test_doctor(client: DockerClient) -> None:
    status, out, err = run("doctor", "--json")
    report = one_object(out)
    assert report.keys() == {"ok", "checks"}
    assert all(check.keys() == {"name", "ok", "found", "fix", "required"} for check in report["checks"])
    wanting = [check["name"] for check in report["checks"] if check["required"] and not check["ok"]]
    assert (report["ok"], status, err) == (not wanting, 1 if wanting else 0, "")


def test_doctor_without_a_daemon() -> None:
    status, out, _ = run("doctor", "--json", env=NO_DAEMON)
    report = one_object(out)
    assert (status, report["ok"]) == (1, False)
    [docker] = [check for check in report["checks"] if check["name"] == "Docker"]
    assert (docker["ok"], docker["fix"]) == (False, "swe-srl env docker")
    status, out, _ = run("doctor", env=NO_DAEMON)
    assert status == 1
    [line] = [line for line in out.splitlines() if "│ Docker " in line]
    assert "missing" in line
    assert "swe-srl env docker" in line
