"""replay, as a user calls, interrupts and continues it."""

from __future__ import annotations

import dataclasses
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import NO_DAEMON, SHIPPED, one_object, run, start, trajectory
from docker import DockerClient

from swe_srl.environments.docker import RUN_LABEL
from swe_srl.trajectories.model import Trajectory
from swe_srl.trajectories.storage import write_jsonl


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "name a recipe, or the folder of a run to go on with: --resume RUN"),
        (["train", "--resume", "run", "--out", "other"], "--resume goes on in the folder it names: leave out --out and"),
        (["train", "--resume", "run"], "run: holds no run to continue"),
        (["export-model", "run", "--to", "model"], "run: has no checkpoint/: it is not finished, or this is not the folder of"),
    ],
)
def test_runs_that_are_not_there(tmp_path: Path, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_replay_of_what_ships(client: DockerClient, base_image: str, tmp_path: Path) -> None:
    status, out, err = run("replay", SHIPPED, "--tasks", "environments/ttlbox-expiry-edge", "--out", tmp_path / "run", "--json")
    assert status == 0, err
    report = one_object(out)
    assert report["failed"] == []
    [row] = report["trajectories"]
    assert (row["id"], row["steps"], row["exact"], row["submission_equal"]) == (
        "ttlbox-expiry-edge-demonstration",
        11,
        11,
        True,
    )
    tests = {"resolved": True, "fail_to_pass": 4, "pass_to_pass": 15, "failing": [], "reason": None}
    assert {key: row["tests"][key] for key in tests} == tests
    total = report["overall"]
    assert (total["trajectories"], total["exact"], total["submissions_equal"], total["resolved"]) == (1, 11, 1, 1)
    assert json.loads((tmp_path / "run" / "replay.json").read_text()) == report
    assert (tmp_path / "run" / "differences.jsonl").read_text() == ""
    status, out, err = run("replay", SHIPPED, "--tasks", "environments/ttlbox-expiry-edge", "--out", tmp_path / "run")
    assert status == 0
    assert "1 of 1 trajectories are replayed already" in err
    assert "ttlbox-expiry-edge-demonstration │ 11    │ 11" in out
    [row] = [line.split("│") for line in out.splitlines() if "ttlbox" in line]
    [totals] = [line.split("│") for line in out.splitlines() if "all 1" in line]
    assert [cell.strip() for cell in totals[2:10]] == [*(cell.strip() for cell in row[2:8]), "1/1", "1/1"]
    assert [cell.strip() for cell in row[8:10]] == ["equal", "resolved"]


def test_replay_without_a_daemon(tmp_path: Path) -> None:
    status, out, err = run("replay", SHIPPED, "--tasks", "environments", "--out", tmp_path / "run", env=NO_DAEMON)
    assert (status, out) == (1, "")
    [line] = [line for line in err.splitlines() if not line.startswith("11 tasks have no trajectory here: ")]
    assert line.startswith("error: no Docker daemon answers (")
    assert line.endswith("; start one with `swe-srl env docker` or set DOCKER_HOST")
    assert not (tmp_path / "run").exists()


def test_replay_says_what_it_could_not_do_and_does_the_rest(
    client: DockerClient, base_image: str, tasks: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    trajectories = [
        trajectory("good"),
        trajectory("stray", task="unknown-task"),
        trajectory("unbuilt", task="no-release"),
        trajectory("foreign", scaffold="another"),
    ]
    write_jsonl(runs / "runs.jsonl", trajectories)
    (runs / "cut.json").write_text('{"a": ')
    status, out, err = run("replay", runs, "--tasks", tasks, "--out", tmp_path / "run", "--json")
    assert status == 1
    report = one_object(out)
    assert [(row["id"], row["exact"], row["error"] is None) for row in report["trajectories"]] == [
        ("foreign", 0, False),
        ("good", 1, True),
    ]
    reasons = {failure["id"]: failure["reason"] for failure in report["failed"]}
    assert sorted(reasons) == sorted([f"{runs}/cut.json:1", "stray", "no-release", "foreign"])
    assert reasons["stray"] == f"no task 'unknown-task' in {tasks}"
    assert reasons["no-release"].startswith("source.sdist: the package index has no source release iniconfig==0.0.999")
    assert reasons["foreign"].startswith("unknown scaffold 'another'")
    assert all(f"error: {name}: {reason}" in err for name, reason in reasons.items())
    assert "1 tasks have no trajectory here: idle" in err


@pytest.mark.parametrize(
    ("trajectory", "arguments", "reason"),
    [
        (trajectory("stray", task="unknown"), [], "nothing to replay: stray: no task 'unknown' in tasks.jsonl"),
        (
            trajectory("a"),
            ["--task", "idle"],
            "nothing to replay: idle: no trajectory of this task in run.jsonl",
        ),
        (trajectory("a"), ["--tasks", "none"], "none: no such file or folder; give a task.toml, "),
    ],
)
def test_nothing_to_replay(tasks: Path, trajectory: Trajectory, arguments: list[str], reason: str) -> None:
    write_jsonl(tasks.parent / "run.jsonl", [trajectory])
    status, out, err = run("replay", "run.jsonl", "--tasks", tasks.name, *arguments, env=NO_DAEMON, cwd=tasks.parent)
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"error: {reason}")


def test_a_replay_keeps_snapshots_when_asked(client: DockerClient, base_image: str, tasks: Path) -> None:
    write_jsonl(tasks.parent / "run.jsonl", [trajectory("mine")])
    command = ["replay", tasks.parent / "run.jsonl", "--tasks", tasks, "--out", tasks.parent / "run", "--json"]
    assert run(*command)[0] == 0
    assert not (tasks.parent / "run" / "snapshots.jsonl").exists()
    assert run(*command, "--snapshot", "changed")[0] == 0
    rows = [json.loads(line) for line in (tasks.parent / "run" / "snapshots.jsonl").read_text().splitlines()]
    assert [(row["trajectory"], row["k"]) for row in rows] == [("mine", 0), ("mine", 1)]
    for row in rows:
        client.images.remove(row["image"])
    status, _, err = run(*command, "--snapshot", "some")
    assert status == 2
    assert "'some' is not one of 'all', 'changed', 'none'" in err


def _containers_of(client: DockerClient, pid: int) -> list[str]:
    rows = client.api.containers(all=True, filters={"label": RUN_LABEL})
    return [row["Id"] for row in rows if row["Labels"][RUN_LABEL].startswith(f"{pid}.")]


def _wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["SIGINT", "SIGTERM", "SIGTERM in the background"],
)
def test_a_replay_that_is_interrupted(
    client: DockerClient, base_image: str, tasks: Path, number: signal.Signals, background: bool
) -> None:
    """In the middle of a long step, with others waiting."""
    runs = [trajectory(name, command="echo here; sleep 100") for name in "abc"]
    write_jsonl(tasks.parent / "run.jsonl", runs)
    arguments = ("replay", tasks.parent / "run.jsonl", "--tasks", tasks, "--out", tasks.parent / "run")
    process = start(*arguments, background=background)
    _wait_until(lambda: len(_containers_of(client, process.pid)) == 2)
    time.sleep(1)
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted; what was finished is kept, containers of this run are removed"
    assert "Traceback" not in err
    assert _containers_of(client, process.pid) == []


def test_a_replay_that_was_killed_goes_on(client: DockerClient, base_image: str, tasks: Path) -> None:
    """What had ended is not run again, and the result is that of a replay in one go."""
    runs = [trajectory("a"), trajectory("b", command="sleep 4; echo 1"), trajectory("c", command="echo 2")]
    write_jsonl(tasks.parent / "run.jsonl", runs)
    arguments = (
        "replay",
        tasks.parent / "run.jsonl",
        "--tasks",
        tasks,
        "--out",
        tasks.parent / "run",
        "--workers",
        "1",
        "--json",
    )
    results = tasks.parent / "run" / "replay.jsonl"
    process = start(*arguments)
    _wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") == 1)
    process.kill()
    process.communicate()
    written = results.read_bytes()
    results.write_bytes(written + b'{"key": "cut o')
    status, out, err = run(*arguments)
    assert status == 0, err
    assert "1 of 3 trajectories are replayed already in" in err
    report = one_object(out)
    assert [(row["id"], row["exact"], row["error"]) for row in report["trajectories"]] == [
        ("a", 1, None),
        ("b", 1, None),
        ("c", 0, None),
    ]
    assert results.read_bytes().startswith(written)
    lines = [json.loads(line) for line in results.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c"]
    status, out, err = run(*arguments)
    assert "3 of 3 trajectories are replayed already" in err
    assert (status, one_object(out)) == (0, report)

    write_jsonl(tasks.parent / "run.jsonl", [runs[0], trajectory("b", command="echo 3"), runs[2]])
    status, out, err = run(*arguments)
    assert "2 of 3 trajectories are replayed already" in err, "another content is another replay"
    assert [row["exact"] for row in one_object(out)["trajectories"]] == [1, 0, 0]
    assert "replayed already" not in run(*arguments, "--overwrite")[2]
    assert len(results.read_bytes().splitlines()) == 3
    assert "replayed already" not in run(*arguments, "--runtime", "runc")[2], "other options are another replay"


def test_steps_after_a_divergence_are_marked(client: DockerClient, base_image: str, tasks: Path) -> None:
    first, second = trajectory("good"), trajectory("bad", command="echo 2")
    turns = (*second.turns, first.turns[1], first.turns[1])
    write_jsonl(tasks.parent / "run.jsonl", [first, dataclasses.replace(second, turns=turns)])
    arguments = ("replay", tasks.parent / "run.jsonl", "--tasks", tasks, "--out", tasks.parent / "run")
    status, out, err = run(*arguments, "--require", "exact", "--json")
    assert status == 0, err
    report = one_object(out)
    assert [(row["id"], row["steps"], row["exact"], row["marked"]) for row in report["trajectories"]] == [
        ("bad", 3, 2, 2),
        ("good", 1, 1, 0),
    ]
    assert report["trajectories"][0]["first_difference"] == {"k": 0, "line": 1, "recorded": "1", "replayed": "2"}
    assert report["overall"]["marked"] == 2
    marks = [json.loads(line) for line in (tasks.parent / "run" / "marks.jsonl").read_text().splitlines()]
    assert {row["id"]: row["first"] for row in marks} == {"bad": 1, "good": None}
    status, out, err = run(*arguments, "--require", "returncode")
    assert "2 of 2 trajectories are replayed already" in err, "another requirement judges the same results"
    assert "bad@0" in out
    marks = [json.loads(line) for line in (tasks.parent / "run" / "marks.jsonl").read_text().splitlines()]
    assert {row["id"]: row["first"] for row in marks} == {"bad": None, "good": None}
    run(*arguments)
    assert not (tasks.parent / "run" / "marks.jsonl").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--require", "similar", "--require similar: expected exact, returncode, or similarity>=X with X from 0 to 1"),
        ("--images", "build", "--images is about the nodes of a cluster: add --cluster"),
        ("--cluster", "slurm", "--cluster slurm: expected local, ray, or ray://HOST:PORT"),
        ("--runtime", "runsk", "runtime runsk: the Docker daemon has none of this name; it has "),
    ],
)
def test_an_option_of_replay_that_cannot_be_had(
    client: DockerClient, tasks: Path, option: str, value: str, message: str
) -> None:
    write_jsonl(tasks.parent / "run.jsonl", [trajectory("a"), trajectory("b")])
    out_folder = tasks.parent / "run"
    status, out, err = run("replay", tasks.parent / "run.jsonl", "--tasks", tasks, "--out", out_folder, option, value)
    assert (status, out) == (1, "")
    assert [line for line in err.splitlines() if line.startswith("error: ")] == [err.splitlines()[-1]]
    assert err.splitlines()[-1].startswith(f"error: {message}")
    assert not out_folder.exists()
