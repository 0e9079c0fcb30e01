"""Task images: what they hold, what decides their name, and how a build that fails is told."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from docker import DockerClient
from tiny import FILES, MakeTask

from swe_srl.cache import cache_folder
from swe_srl.environments.docker import RUN_ID, RUN_LABEL, DockerSandbox
from swe_srl.environments.image import build_image, build_images, image_tag, list_images
from swe_srl.environments.sdist import fetch_sdist
from swe_srl.errors import UserError
from swe_srl.scaffolds import tool_files

PATCH = """\
--- a/tiny/__init__.py
+++ b/tiny/__init__.py
@@ -1 +1 @@
-ONE = 1
+ONE = 2
"""


@pytest.fixture(autouse=True)
def _base(base_image: str) -> None:
    """Every image here stands on the base image."""


def _said(client: DockerClient, image: str, command: str) -> str:
    with DockerSandbox.start(client, image) as sandbox:
        result = sandbox.execute(command, timeout=60)
    assert result.returncode == 0, result.output
    return result.output.strip()


def _containers_of_this_run(client: DockerClient) -> list[str]:
    return [container.name or "" for container in client.containers.list(all=True, filters={"label": f"{RUN_LABEL}={RUN_ID}"})]


# Content


def test_the_repository_as_an_agent_finds_it(client: DockerClient, make_task: MakeTask) -> None:
    image = build_image(client, make_task(env={"TINY": "a b"}, path_prepend=["/opt/tiny/bin"]))
    assert (image.cached, image.tag) == (False, image.tag)
    with DockerSandbox.start(client, image.tag) as sandbox:

        def said(command: str) -> str:
            result = sandbox.execute(command, timeout=20)
            assert result.returncode == 0, result.output
            return result.output.rstrip("\n")

        assert said("pwd") == "/testbed"
        assert said("git ls-files").splitlines() == sorted(FILES)
        assert sandbox.read_file("/testbed/tiny/__init__.py") == b"ONE = 1\n"
        assert (
            said("git log --format='%s %an %at %ct'")
            == "start testbed 1729728000 1729728000\nbase testbed 1729728000 1729728000"
        )
        assert said("git rev-list --all --objects --count") == said("git rev-list HEAD --objects --count")
        assert said("git status --porcelain --ignored") == ""
        assert said("git remote; git tag; git stash list; ls .git/logs 2>/dev/null | grep -v '^HEAD$\\|^refs$' || true") == ""
        assert said("git branch --format='%(refname)'") == "refs/heads/master"
        assert said("git diff HEAD~1 --stat") == ""
        assert said("stat -c %Y README.md") == "1729728000"
        assert said('echo "$TINY|$PATH"') == ("a b|/opt/tiny/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def test_every_scaffold_s_tools_are_there_and_can_be_run(client: DockerClient, make_task: MakeTask) -> None:
    tools = tool_files()
    assert [tool.path for tool in tools] == [
        "/usr/local/bin/str_replace_editor",
        "/usr/local/bin/str_replace_editor.py",
        "/usr/local/bin/submit",
        *(
            f"/usr/local/lib/swe-srl/{name}"
            for name in ("lint.py", "openhands_editor.py", "run", "search.py", "windowed.py", "windowed.sh", "windowed_0.py")
        ),
    ]
    with DockerSandbox.start(client, build_image(client, make_task()).tag) as sandbox:
        for tool in tools:
            assert sandbox.read_file(tool.path) == tool.content
            assert sandbox.execute(f"stat -c %a {tool.path}", timeout=20).output == "755\n"


def test_commands_run_before_and_after_the_base_commit(client: DockerClient, make_task: MakeTask) -> None:
    task = make_task(prepare=["NAME=shared", "echo $NAME > before", "rm run.sh"], setup=["echo $NAME > after", "pwd >> after"])
    said = _said(client, build_image(client, task).tag, "git status --porcelain; cat before after; ls")
    assert said.splitlines() == ["?? after", "shared", "shared", "/testbed", "README.md", "after", "before", "tiny"]


def test_two_builds_are_the_same_commit(client: DockerClient, make_task: MakeTask) -> None:
    one, two = build_image(client, make_task()), build_image(client, make_task())
    assert one.tag != two.tag
    hashes = [_said(client, image.tag, "git rev-parse HEAD HEAD~1 HEAD^{tree}") for image in (one, two)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0].split())) == 3


def test_a_patch_is_applied_before_the_base_commit(client: DockerClient, make_task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "bug.patch").write_text(PATCH)
    image = build_image(client, make_task(patches=["bug.patch"]))
    assert (
        _said(client, image.tag, "cat tiny/__init__.py; git show HEAD~1:tiny/__init__.py; git status -s") == "ONE = 2\nONE = 2"
    )


def test_a_source_release_is_unpacked_as_a_clone_would_be(client: DockerClient, make_task: MakeTask) -> None:
    image = build_image(client, make_task(source={"sdist": "iniconfig==2.0.0"}))
    said = _said(client, image.tag, "grep ^Version PKG-INFO; ls -d src; find . ! -type l -perm /022 | head; git status -s")
    assert said == "Version: 2.0.0\nsrc"
    assert _said(client, image.tag, "find . ! -user 0 | head; git log --format=%s") == "start\nbase"


def test_modes_and_owners_of_the_releaser_do_not_matter(client: DockerClient, make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(source={"sdist": "crafted==1.0"})
    cache = tmp_path / "cache" / "sdists"
    cache.mkdir(parents=True)
    with tarfile.open(cache / "crafted==1.0.tar.gz", "w:gz") as tar:
        for name, mode in (("a.py", 0o666), ("run.sh", 0o777), ("setuid", 0o6755)):
            info = tarfile.TarInfo(f"crafted-1.0/{name}")
            info.mode, info.uid, info.gid = mode, 1000, 1000
            tar.addfile(info)
    said = _said(client, build_image(client, task).tag, "stat -c '%n %a %u %g' *; git ls-files -s | cut -d' ' -f1")
    assert said.splitlines() == ["a.py 644 0 0", "run.sh 755 0 0", "setuid 755 0 0", "100644", "100755", "100755"]


def test_nothing_of_how_the_host_reaches_the_network_stays(
    client: DockerClient, make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("the host's own authority\n")
    for name, value in {
        "PIP_CERT": str(bundle),
        "PIP_INDEX_URL": "https://user:secret@index.invalid/simple",
        "HTTPS_PROXY": "http://user:secret@proxy.invalid:3128",
        "PIP_TRUSTED_HOST": "index.invalid",
    }.items():
        monkeypatch.setenv(name, value)
    names = "PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_INDEX_URL HTTPS_PROXY https_proxy PIP_TRUSTED_HOST"
    seen = " ".join(f"${name}" for name in names.split())
    image = build_image(
        client, make_task(setup=['test "$(cat $PIP_CERT)" = "the host\'s own authority"', f"echo {seen}; false || true"])
    )
    with DockerSandbox.start(client, image.tag) as sandbox:
        env = sandbox.execute("env; cat /proc/1/environ", timeout=20).output
        assert not re.search(r"secret|invalid|PIP_|CERT|BUNDLE|PROXY|proxy|DEBIAN_FRONTEND", env)
        left = sandbox.execute("ls /run/*.pem /etc/pip.conf ~/.config/pip ~/.pip ~/.cache/pip", timeout=20)
        assert left.output.count("No such file or directory") == 5
        found = sandbox.execute("grep -rlsE 'index.invalid|own authority' /etc /run /root /tmp /var /opt /testbed", timeout=60)
        assert found.output == ""
    history = client.api.history(image.tag)
    config = client.images.get(image.tag).attrs["Config"]
    assert "secret" not in f"{history}{config}"
    assert sorted(line.partition("=")[0] for line in config["Env"]) == ["PATH"]


def test_a_build_sees_the_host_s_settings(client: DockerClient, make_task: MakeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    image = build_image(client, make_task(setup=["echo $PIP_INDEX_URL > seen; test -r $PIP_CERT && echo bundle >> seen"]))
    assert _said(client, image.tag, "cat seen") == "https://index.invalid/simple\nbundle"


# Names


def test_a_second_build_is_not_made(client: DockerClient, make_task: MakeTask) -> None:
    task = make_task(setup=["date +%N > when"])
    said: list[str] = []
    first, second = build_image(client, task, said.append), build_image(client, task, said.append)
    assert (first.cached, second.cached) == (False, True)
    assert first.tag == second.tag
    assert said == [f"building {task.id}"]


def test_what_decides_the_content_decides_the_name(make_task: MakeTask, tmp_path: Path) -> None:
    def tag(files: dict[str, str] = FILES, **fields: object) -> str:
        return image_tag(make_task(files, id="same", **fields), "sha256:base")

    plain = tag()
    assert re.fullmatch(r"swe-srl/task:same-[0-9a-f]{12}", plain)
    for fields in (
        {"problem_statement": "another issue"},
        {"repo": "other"},
        {"test_command": "pytest"},
        {"test_patch": "diff"},
        {"fail_to_pass": ["a"]},
        {"extra": {"note": 1}},
    ):
        assert tag(**fields) == plain, fields
    (tmp_path / "one.patch").write_text(PATCH)
    (tmp_path / "two.patch").write_text(PATCH.replace("ONE = 2", "ONE = 3"))
    others = [
        tag({**FILES, "README.md": "# Tiny\n"}),
        tag({**FILES, "new.py": ""}),
        tag({key: text for key, text in FILES.items() if key != "run.sh"}),
        tag(env={"A": "1"}),
        tag(env={"A": "2"}),
        tag(base_setup=["true"]),
        tag(prepare=["true"]),
        tag(setup=["true"]),
        tag(workdir="/src"),
        tag(path_prepend=["/opt/bin"]),
        tag(patches=["one.patch"]),
        tag(patches=["two.patch"]),
        tag(patches=["one.patch", "two.patch"]),
        image_tag(make_task(id="same"), "sha256:other"),
    ]
    assert len({plain, *others}) == 1 + len(others)
    (tmp_path / "one.patch").write_text(PATCH.replace("ONE = 2", "ONE = 4"))
    assert tag(patches=["one.patch"]) not in others


def test_files_that_are_made_by_running_decide_nothing(make_task: MakeTask) -> None:
    made = {"tiny/__pycache__/x.pyc": "", "tiny.egg-info/PKG-INFO": "", ".git/HEAD": "", ".pytest_cache/a": ""}
    assert image_tag(make_task({**FILES, **made}, id="same"), "") == image_tag(make_task(id="same"), "")


def test_an_executable_file_decides_and_stays_executable(client: DockerClient, make_task: MakeTask) -> None:
    plain, executable = make_task(id="same"), make_task(id="same")
    assert executable.source.path is not None
    (executable.source.path / "run.sh").chmod(0o755)
    assert image_tag(plain, "") != image_tag(executable, "")
    assert _said(client, build_image(client, executable).tag, "stat -c %a run.sh README.md; ./run.sh") == "755\n644\nrun"


def test_an_id_that_is_no_image_name(client: DockerClient, make_task: MakeTask) -> None:
    tag = image_tag(make_task(id="-owner/repo:1 é"), "")
    assert re.fullmatch(r"swe-srl/task:owner-repo-1---[0-9a-f]{12}", tag)


# Failures


def test_a_setup_command_that_fails(client: DockerClient, make_task: MakeTask, tmp_path: Path) -> None:
    task = make_task(setup=["echo fine", "for i in 1 2 3; do echo line $i; done; echo oops >&2; exit 7", "echo never"])
    with pytest.raises(UserError) as failure:
        build_image(client, task)
    message = str(failure.value)
    assert message.startswith(f"task {task.id}: setup command failed (exit status 7): for i in 1 2 3;")
    assert "line 1\nline 2\nline 3\noops\n" in message
    assert "never" not in message.replace("echo never", "")
    log = Path(message.rpartition("whole log: ")[2])
    assert log.read_text().endswith("oops\n")
    assert _containers_of_this_run(client) == []
    assert not client.images.list(image_tag(task, str(client.images.get(task.base_image).id)))


def test_a_base_setup_command_that_fails(client: DockerClient, make_task: MakeTask) -> None:
    task = make_task(base_setup=["echo first", "nosuchcommand"])
    with pytest.raises(
        UserError, match=r"base setup of task tiny-\w+: setup command failed \(exit status 127\): nosuchcommand\n"
    ):
        build_image(client, task)
    assert _containers_of_this_run(client) == []


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        (PATCH.replace("-ONE = 1", "-ONE = 5"), "applying .*bad.patch failed: error: patch failed: tiny/__init__.py:1"),
        (PATCH.replace("tiny/__init__.py", "tiny/none.py"), "applying .*bad.patch failed: error: tiny/none.py: No such file"),
        ("just text\n", "bad.patch holds no change; expected a unified diff"),
        ("", "bad.patch holds no change; expected a unified diff"),
        ("--- a/x\n+++ b/x\n@@ -1,3 +1 @@\n-ONE\n", "bad.patch is not a unified diff: "),
    ],
)
def test_a_bad_patch(client: DockerClient, make_task: MakeTask, tmp_path: Path, patch: str, reason: str) -> None:
    (tmp_path / "bad.patch").write_text(patch)
    task = make_task(patches=["bad.patch"])
    with pytest.raises(UserError, match=rf"^task {task.id}: (?s:.*){reason}"):
        build_image(client, task)
    assert _containers_of_this_run(client) == []


def test_a_patch_that_is_not_text(client: DockerClient, make_task: MakeTask, tmp_path: Path) -> None:
    (tmp_path / "bad.patch").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"bad\.patch is not a unified diff: 'utf-8' codec"):
        build_image(client, make_task(patches=["bad.patch"]))


@pytest.mark.parametrize("sdist", ["iniconfig==0.0.999", "swe-srl-no-such-project-0123==1.0"])
def test_a_source_release_that_does_not_exist(client: DockerClient, make_task: MakeTask, sdist: str) -> None:
    name, version = sdist.split("==")
    with pytest.raises(UserError, match=rf"source.sdist: the package index has no .*{name}.*{re.escape(version)}"):
        build_image(client, make_task(source={"sdist": sdist}))
    assert _containers_of_this_run(client) == []


def test_an_index_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(UserError, match=r"source.sdist: could not fetch iniconfig==2.0.0: "):
        fetch_sdist("iniconfig==2.0.0")
    assert list((tmp_path / "sdists").iterdir()) == []


def test_only_the_release_itself_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a longer version nor a download that was cut off."""
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    (tmp_path / "sdists").mkdir()
    for name in ("a-name==1.0.1.tar.gz", "a-name==1.0.tar.gz.123.part", "a-name==1.0.2.zip"):
        (tmp_path / "sdists" / name).write_bytes(b"")
    with pytest.raises(UserError, match="could not fetch"):
        fetch_sdist("A_name==1.0")
    (tmp_path / "sdists" / "a-name==1.0.tar.gz").write_bytes(b"")
    assert fetch_sdist("A_name==1.0") == tmp_path / "sdists" / "a-name==1.0.tar.gz"


def test_a_base_image_that_does_not_exist(client: DockerClient, make_task: MakeTask) -> None:
    with pytest.raises(
        UserError, match=r"base image localhost:9/none:1 is not here and could not be pulled .*swe-srl/base:py311"
    ):
        build_image(client, make_task(base_image="localhost:9/none:1"))


def test_good_images_are_kept_when_one_fails(client: DockerClient, make_task: MakeTask) -> None:
    tasks = [make_task(), make_task(setup=["exit 9"]), make_task(source={"sdist": "iniconfig==0.0.999"}), make_task()]
    built, failed = build_images(client, tasks, lambda _: None, workers=2)
    assert sorted(built) == sorted([tasks[0].id, tasks[3].id])
    assert sorted(failed) == sorted([tasks[1].id, tasks[2].id])
    assert "exit status 9" in failed[tasks[1].id]
    listed = {str(row["tag"]): row for row in list_images(client)}
    assert {built[task.id].tag for task in (tasks[0], tasks[3])} <= listed.keys()
    assert listed["swe-srl/base:py311"].keys() == {"tag", "bytes", "created"}
    assert int(listed[built[tasks[0].id].tag]["bytes"]) >= int(listed["swe-srl/base:py311"]["bytes"]) > 10**8
    assert list(listed) == sorted(listed)


def test_equal_base_setups_are_built_once(client: DockerClient, make_task: MakeTask) -> None:
    tasks = [make_task(base_setup=["echo layer > /opt/layer"]) for _ in range(2)]
    said: list[str] = []
    built, failed = build_images(client, tasks, said.append, workers=2)
    assert failed == {}
    assert sum(line.startswith("building the base setup") for line in said) <= 1
    assert {_said(client, image.tag, "cat /opt/layer") for image in built.values()} == {"layer"}


_BUILD = """
import json, sys
from pathlib import Path
from swe_srl.environments.docker import connect
from swe_srl.environments.image import build_images
from swe_srl.environments.task import task_from_row
tasks = [task_from_row(row, Path("/")) for row in json.loads(sys.argv[1])]
built, failed = build_images(connect(), tasks, lambda _: None, workers=2)
print(json.dumps([failed, sorted(image.tag for image in built.values())]))
"""


def test_two_processes_that_build_at_once(client: DockerClient, make_task: MakeTask) -> None:
    """One task that both need and one of each: nobody fails, all images are whole, each build's log is kept."""
    tasks = [make_task(setup=["echo started; sleep 1; echo built > built"]) for _ in range(3)]
    rows = [{"id": task.id, "source": {"path": str(task.source.path)}, "setup": list(task.setup)} for task in tasks]
    commands = [[sys.executable, "-c", _BUILD, json.dumps(some)] for some in (rows[:2], rows[1:])]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    base = str(client.images.get("swe-srl/base:py311").id)
    tags = [image_tag(task, base) for task in tasks]
    assert said == [[{}, sorted(tags[:2])], [{}, sorted(tags[1:])]]
    assert {_said(client, tag, "cat built; git status --porcelain") for tag in tags} == {"built\n?? built"}
    for task in tasks:
        assert (cache_folder("builds") / f"{task.id}.log").read_text() == "==> 1\n==> 2\nstarted\n"
