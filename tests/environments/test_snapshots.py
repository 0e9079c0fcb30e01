"""A snapshot is the state, a fork goes on from there; what changed nothing takes no room; a map names every step's image."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker import DockerClient
from tiny import MakeTask, replay_here

from swe_srl.environments import docker as docker_module
from swe_srl.environments.docker import SNAPSHOT_LABEL, SNAPSHOTS, TEMPORARY_LABEL, DockerSandbox
from swe_srl.environments.image import build_image
from swe_srl.environments.replaying import ReplayWork
from swe_srl.environments.record import Script, record
from swe_srl.environments.runs import RUN_ID, RUN_LABEL
from swe_srl.environments.sandbox import SandboxLost, Snapshot
from swe_srl.environments.snapshots import FILE, Keep, SnapshotMap, find_snapshot, read_map
from swe_srl.errors import UserError
from swe_srl.trajectories.model import Trajectory

NAME = "tests/run-1@3"


@pytest.fixture(autouse=True)
def only_own_snapshots(client: DockerClient) -> Iterator[None]:
    _remove_snapshots(client)  # that other tests of this process have left
    yield
    _remove_snapshots(client)


def _remove_snapshots(client: DockerClient) -> None:
    for image in client.api.images(SNAPSHOTS, filters={"label": f"{RUN_LABEL}={RUN_ID}"}):
        for tag in image["RepoTags"] or ():
            client.api.remove_image(tag, force=True)


def _session(sandbox: DockerSandbox, command: str) -> str:
    return sandbox.execute(command, timeout=20, session=True).output


# One snapshot


def test_a_fork_goes_on_where_the_snapshot_was_made(client: DockerClient, sandbox: DockerSandbox) -> None:
    _session(sandbox, "mkdir '/tmp/a b'; cd '/tmp/a b'; export ONE='1  \"2\"' TWO=$'line\\nline'; unset HOME; echo old > file")
    sandbox.write_file("/tmp/bytes", bytes(range(256)))
    snapshot = sandbox.snapshot()
    _session(sandbox, "echo new > file; rm /tmp/bytes; cd /; export ONE=2")
    with DockerSandbox.start(client, snapshot.image) as fork:
        assert _session(fork, 'echo "$PWD|$OLDPWD|$ONE|$TWO|${HOME-unset}"; cat file') == '/tmp/a b|/|1  "2"|line\nline|unset\nold\n'
        assert fork.read_file("/tmp/bytes") == bytes(range(256))
        _session(fork, "echo fork > file")
        assert fork.execute("pwd; echo $ONE", timeout=20).output == "/\n\n"
    assert _session(sandbox, "echo $PWD $ONE; cat '/tmp/a b/file'") == "/ 2\nnew\n"


def test_two_forks_do_not_see_each_other(client: DockerClient, sandbox: DockerSandbox) -> None:
    image = sandbox.snapshot().image
    with DockerSandbox.start(client, image) as one, DockerSandbox.start(client, image) as other:
        one.execute("echo 1 > /tmp/file", timeout=20)
        assert other.execute("cat /tmp/file", timeout=20).returncode == 1


def test_a_fork_of_a_fork(client: DockerClient, sandbox: DockerSandbox) -> None:
    image = sandbox.snapshot().image
    for number in range(3):
        with DockerSandbox.start(client, image) as fork:
            _session(fork, f"echo {number} >> /tmp/file; export N=${{N}}{number}")
            image = fork.snapshot().image
    with DockerSandbox.start(client, image) as fork:
        assert _session(fork, "cat /tmp/file; echo $N") == "0\n1\n2\n012\n"


def test_what_changed_nothing_takes_no_new_layer(sandbox: DockerSandbox) -> None:
    _session(sandbox, "cd /tmp; export ONE=1; echo 1 > file")
    first = sandbox.snapshot()
    for command in ("true", "ls -R /etc", "cat file; grep -r x /etc/os-release", "cd /; cd /tmp; ONE=2; ONE=1", "exit 3"):
        _session(sandbox, command)
        sandbox.execute(command, timeout=20)
        sandbox.execute(f": {'x' * 200_000}", timeout=20)
    second = sandbox.snapshot()
    assert second.layers == first.layers
    assert second.image != first.image
    for command in ("echo 2 > file", "cd /", "export TWO=2", "mkdir /tmp/empty", "chmod 600 /tmp/file"):
        _session(sandbox, command)
        third = sandbox.snapshot()
        assert (third.layers != second.layers, third.layers[:-1]) == (True, second.layers[:-1])
        second = third


def test_background_jobs_stand_still_and_go_on(sandbox: DockerSandbox) -> None:
    sandbox.execute("(for i in {1..600}; do echo $i >> /tmp/log; sleep 0.1; done) > /dev/null 2>&1 &", timeout=20)
    sandbox.snapshot()
    before = int(sandbox.execute("wc -l < /tmp/log", timeout=20).output)
    assert int(sandbox.execute("sleep 0.5; wc -l < /tmp/log", timeout=20).output) > before


def test_a_removed_working_directory_stays_removed(client: DockerClient, base_image: str, make_task: MakeTask) -> None:
    with DockerSandbox.start(client, build_image(client, make_task()).tag) as sandbox:
        sandbox.execute("rm -r /testbed", timeout=20)
        image = sandbox.snapshot().image
    with DockerSandbox.start(client, image) as fork:
        result = fork.execute("pwd; mkdir /testbed", timeout=20)
        assert result.output == "bash: cd: /testbed: No such file or directory\n/\n"
        assert fork.execute("pwd", timeout=20).output == "/testbed\n"


def test_a_fork_is_denied_what_its_sandbox_was(client: DockerClient, sandbox: DockerSandbox) -> None:
    with DockerSandbox.start(client, sandbox.snapshot().image) as fork:
        host = client.api.inspect_container(fork.container.id)["HostConfig"]
        assert (host["NetworkMode"], host["CapDrop"], host["Binds"], host["PidsLimit"]) == ("none", ["ALL"], None, 512)
        assert fork.execute("ls /sys/class/net; grep NoNewPrivs /proc/self/status", timeout=20).output == "lo\nNoNewPrivs:\t1\n"


def test_labels_tell_what_it_is(client: DockerClient, sandbox: DockerSandbox) -> None:
    def labels(snapshot: Snapshot) -> dict[str, str]:
        return dict(client.api.inspect_image(snapshot.image)["Config"]["Labels"])

    assert labels(sandbox.snapshot(NAME)) == {RUN_LABEL: RUN_ID, SNAPSHOT_LABEL: NAME}
    assert labels(sandbox.snapshot()) == {RUN_LABEL: RUN_ID, TEMPORARY_LABEL: ""}


def test_more_layers_than_can_be_mounted(
    client: DockerClient, sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the limit a snapshot is written as one layer; owners, modes, links and the image's settings stay."""
    _session(sandbox, "cd /tmp; export ONE=1; echo 1 > file; chmod 4751 file; ln -s file link; ln file hard; touch -d @1 old")
    look = "echo $PWD $ONE; cat link; stat -c '%a %u %h %Y %n' hard old; env | sort"
    expected = _session(sandbox, look)
    monkeypatch.setattr(docker_module, "_MAX_LAYERS", len(sandbox.snapshot().layers) - 1)
    flat = sandbox.snapshot(NAME)
    assert len(flat.layers) == 1
    with DockerSandbox.start(client, flat.image) as fork:
        assert _session(fork, look) == expected
        assert fork.execute("env | sort", timeout=20).output == sandbox.execute("env | sort", timeout=20).output
    labels = client.api.inspect_image(flat.image)["Config"]["Labels"]
    assert labels == {RUN_LABEL: RUN_ID, SNAPSHOT_LABEL: NAME}
    assert _session(sandbox, look) == expected


def test_a_sandbox_that_has_gone(client: DockerClient, base_image: str) -> None:
    with DockerSandbox.start(client, base_image) as sandbox:
        client.api.remove_container(sandbox.container.id, force=True)
        with pytest.raises(SandboxLost, match="the container no longer answers"):
            sandbox.snapshot()


# The map of a replay


@pytest.fixture
def recorded(client: DockerClient, base_image: str, make_task: MakeTask) -> tuple[str, Trajectory]:
    """A trajectory whose second step changes nothing."""
    task = make_task()
    commands = ["echo 1 > one; export N=1", "cat one; ls", "cd tiny; echo 2 > two", "exit 3"]
    steps = [{"thought": "Go.", "tool": "bash", "arguments": {"command": command}} for command in commands]
    image = build_image(client, task).tag
    return image, record(client, image, task, Script.model_validate({"task": task.id, "steps": steps}))


def _replay(client: DockerClient, recorded: tuple[str, Trajectory], folder: Path, keep: Keep) -> list[str]:
    image, trajectory = recorded
    report = replay_here(client, {trajectory.task_id: image}, [trajectory], snapshots=SnapshotMap(client, folder, keep))
    assert report.failed == []
    return [find_snapshot(folder, f"{trajectory.id}@{k}") for k in range(5)] if keep != "none" else []


def _states(client: DockerClient, images: list[str]) -> list[str]:
    found = []
    for image in images:
        with DockerSandbox.start(client, image) as fork:
            found.append(_session(fork, "ls /testbed /testbed/tiny | grep -cE '^(one|two)$'; echo $PWD $N").replace("\n", " "))
    return found


def test_every_step_has_its_state(client: DockerClient, recorded: tuple[str, Trajectory], tmp_path: Path) -> None:
    images = _replay(client, recorded, tmp_path, "all")
    assert len(set(images)) == 5
    assert [state.strip() for state in _states(client, images)] == [
        "0 /testbed",
        "1 /testbed 1",
        "1 /testbed 1",
        "2 /testbed/tiny 1",
        "2 /testbed/tiny 1",
    ]


def test_a_step_that_changed_nothing_has_the_earlier_image(
    client: DockerClient, recorded: tuple[str, Trajectory], tmp_path: Path
) -> None:
    zero, one, two, three, four = _replay(client, recorded, tmp_path, "changed")
    assert (one == two, three == four) == (True, True)
    assert len({zero, one, three}) == 3
    ours = client.api.images(SNAPSHOTS, filters={"label": f"{RUN_LABEL}={RUN_ID}"})
    assert sorted(image["RepoTags"][0] for image in ours) == sorted({zero, one, three})


def test_nothing_is_kept_unasked(client: DockerClient, recorded: tuple[str, Trajectory], tmp_path: Path) -> None:
    _replay(client, recorded, tmp_path / "run", "none")
    assert not (tmp_path / "run").exists()
    assert client.api.images(SNAPSHOTS, filters={"label": f"{RUN_LABEL}={RUN_ID}"}) == []


def test_a_new_replay_takes_the_place_of_the_former(
    client: DockerClient, recorded: tuple[str, Trajectory], tmp_path: Path
) -> None:
    former = _replay(client, recorded, tmp_path, "changed")
    _replay(client, recorded, tmp_path, "none")
    assert find_snapshot(tmp_path, f"{recorded[1].id}@0") == former[0]
    image, trajectory = recorded
    later = dataclasses.replace(trajectory, id="later")
    replay_here(client, {later.task_id: image}, [later], snapshots=SnapshotMap(client, tmp_path, "changed"))
    ours = client.api.images(SNAPSHOTS, filters={"label": f"{RUN_LABEL}={RUN_ID}"})
    assert {image["Labels"][SNAPSHOT_LABEL] for image in ours} == {"later@0", "later@1", "later@3"}
    assert list(read_map(tmp_path / FILE)) == ["later"]


def test_another_machine_keeps_each_runs_states_apart(
    client: DockerClient, recorded: tuple[str, Trajectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path))
    (image, trajectory), processes = recorded, itertools.count()

    def kept(run: str) -> list[str]:
        monkeypatch.setattr(docker_module, "RUN_ID", f"{RUN_ID}-{next(processes)}")
        work = ReplayWork({trajectory.task_id: image}, {}, grade=False, keep="changed", run=run, client=client)
        return [name for _, name in pickle.loads(pickle.dumps(work))(trajectory, lambda: None).kept]

    first, other = kept("here:/runs/first"), kept("here:/runs/other")
    again = kept("here:/runs/first")
    there = {tag for image in client.api.images(SNAPSHOTS) for tag in image["RepoTags"]}
    assert set(first).isdisjoint(there), "the same run's former states make room"
    assert there.issuperset([*other, *again])
    for tag in {*other, *again}:
        client.api.remove_image(tag, force=True)


def _write(folder: Path, *lines: str) -> Path:
    (folder / FILE).write_text("".join(lines))
    return folder


def test_the_last_line_counts_and_one_cut_off_by_a_kill_does_not(tmp_path: Path) -> None:
    rows = [{"trajectory": "a@b", "k": 0, "image": "one"}, {"trajectory": "a@b", "k": 0, "image": "two"}]
    _write(tmp_path, *(json.dumps(row) + "\n" for row in rows), '{"trajectory": "a@b", "k"')
    assert read_map(tmp_path / FILE) == {"a@b": {0: "two"}}
    assert find_snapshot(tmp_path, "a@b@0") == "two"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("a@2", r"snapshots.jsonl: no step 2 of a; it holds 0 to 1$"),
        ("b@0", r"snapshots.jsonl: no trajectory 'b'; it holds a$"),
        ("a", r"'a' does not name a step: write TRAJECTORY@K, for example a@0$"),
        ("a@x", r"'a@x' does not name a step"),
    ],
)
def test_a_step_that_is_not_there(tmp_path: Path, step: str, reason: str) -> None:
    _write(tmp_path, *(json.dumps({"trajectory": "a", "k": k, "image": "i"}) + "\n" for k in (0, 1)))
    with pytest.raises(UserError, match=reason):
        find_snapshot(tmp_path, step)


def test_a_folder_without_a_map_and_one_with_a_broken_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no snapshots; make them with `swe-srl replay … --out .* --snapshot changed`"):
        find_snapshot(tmp_path, "a@0")
    with pytest.raises(UserError, match=r"snapshots.jsonl:1: not a line of a snapshot map"):
        find_snapshot(_write(tmp_path, "{}\n"), "a@0")
