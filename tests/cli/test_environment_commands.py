"""record and env, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import NO_DAEMON, ROOT, SHIPPED, one_object, run
from docker import DockerClient

from swe_srl.trajectories.importing import load


def test_record_gives_what_ships(client: DockerClient, base_image: str, tmp_path: Path) -> None:
    script = ROOT / "trajectories" / "scripts" / "ttlbox-expiry-edge.toml"
    to = tmp_path / "demonstration.jsonl"
    status, out, err = run("record", script, "--tasks", "environments", "--to", to, "--json")
    assert status == 0, err
    assert one_object(out) == {"id": "ttlbox-expiry-edge-demonstration", "steps": 11, "resolved": True, "file": str(to)}
    [recorded], [shipped] = load([to]), load([SHIPPED])
    assert [step.action for step in recorded.steps()] == [step.action for step in shipped.steps()]
    assert recorded.submission == shipped.submission
    assert recorded.problem == shipped.problem


def test_record_that_does_not_solve_its_task(client: DockerClient, base_image: str, tmp_path: Path) -> None:
    text = (ROOT / "trajectories" / "scripts" / "ttlbox-expiry-edge.toml").read_text()
    (tmp_path / "script.toml").write_text("[[steps]]".join(text.split("[[steps]]")[:2]))
    status, out, _ = run("record", tmp_path / "script.toml", "--tasks", "environments", "--to", tmp_path / "to.jsonl", "--json")
    assert (status, one_object(out)["resolved"]) == (1, False)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('task = "unknown"\n[[steps]]\nthought = "x"\ntool = "bash"', "script.toml: no task 'unknown' in environments"),
        ('task = "ttlbox-expiry-edge"', "script.toml: steps: Field required"),
    ],
)
def test_record_of_a_bad_script(tmp_path: Path, script: str, reason: str) -> None:
    (tmp_path / "script.toml").write_text(script)
    status, out, err = run("record", tmp_path / "script.toml", "--tasks", "environments", "--to", tmp_path / "to.jsonl")
    assert (status, out) == (1, "")
    assert err == f"error: {tmp_path}/{reason}\n"
    assert not (tmp_path / "to.jsonl").exists()


def test_env_build_and_list(client: DockerClient, base_image: str, tasks: Path) -> None:
    arguments = ("env", "build", "--tasks", tasks, "--task", "tiny", "--task", "no-release", "--json")
    status, out, err = run(*arguments)
    report = one_object(out)
    assert status == 1
    [image] = report["images"]
    assert image["task"] == "tiny"
    assert image["image"].startswith("swe-srl/task:tiny-")
    assert [failure["task"] for failure in report["failed"]] == ["no-release"]
    assert f"error: no-release: {report['failed'][0]['reason']}" in err
    again = one_object(run(*arguments)[1])["images"][0]
    assert (again["image"], again["cached"]) == (image["image"], True)
    status, out, _ = run("env", "list", "--json")
    assert status == 0
    assert {"swe-srl/base:py311", image["image"]} <= {row["tag"] for row in one_object(out)["images"]}


def test_env_build_of_bad_and_unknown_tasks(client: DockerClient, base_image: str, tasks: Path) -> None:
    with tasks.open("a") as file:
        file.write('{"id": "bad"}\n')
    status, out, err = run("env", "build", "--tasks", tasks, "--task", "tiny", "--json")
    assert (status, err.splitlines()[-1]) == (1, f"error: {tasks}:4: source: Field required")
    assert one_object(out)["failed"] == [{"task": f"{tasks}:4", "reason": "source: Field required"}]
    status, out, err = run("env", "build", "--tasks", tasks, "--task", "none")
    assert (status, out, err) == (1, "", "error: no task 'none' in --tasks; known: idle, no-release, tiny\n")


def test_env_prune_of_a_size_that_is_none() -> None:
    status, out, err = run("env", "prune", "--max-size", "plenty")
    assert (status, out) == (1, "")
    assert "--max-size plenty: expected a number with a unit, such as 20GB or 500MB" in err


def test_env_prune_where_there_is_room(client: DockerClient) -> None:
    status, out, _ = run("env", "prune", "--max-size", "900000GB", "--json")
    assert (status, one_object(out)["removed"]) == (0, [])


def test_env_without_a_daemon() -> None:
    for command in (["list"], ["base", "py311"], ["build", "--tasks", "environments"]):
        status, out, err = run("env", *command, env=NO_DAEMON)
        assert (status, out) == (1, "")
        assert err.startswith("error: no Docker daemon answers (")
        assert err.count("\n") == 1
    status, _, err = run("env", "docker", env=NO_DAEMON)
    assert status == 1
    assert err.startswith("error: DOCKER_HOST is unix:///nonexistent.sock, but no daemon answers there")
    assert run("env", "base", "py27", env=NO_DAEMON)[2] == "error: unknown base image 'py27'; known: py311, py39\n"


def test_env_docker_and_base_where_both_are_there(client: DockerClient, base_image: str) -> None:
    assert run("env", "docker") == (0, "", "a Docker daemon answers\n")
    assert run("env", "base", "py311", "--json") == (0, '{"images": ["swe-srl/base:py311"]}\n', "")
