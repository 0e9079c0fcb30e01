"""Where a repository comes from: its files at one state, and nothing else of it."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from docker import DockerClient
from tiny import MakeTask

from swe_srl.environments.docker import DockerSandbox
from swe_srl.environments.image import build_image
from swe_srl.environments.source import FIXED_TIME, _submodule_url, source_archive, source_identity
from swe_srl.environments.task import Source
from swe_srl.errors import UserError

FIX = "the answer of the future"


class Upstream:
    """A git repository that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
        done = subprocess.run(["git", *identity, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        for name, text in files.items():
            (self.folder / name).write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Upstream]:
    monkeypatch.setenv("SWE_SRL_CACHE", str(tmp_path / "cache"))
    return lambda name: Upstream(tmp_path / name)


def _members(source: Source) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(source_archive(source).content)) as tar:
        return {member.name: member for member in tar}


def _text(source: Source, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(source_archive(source).content)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read().decode()


def _source(repository: Upstream, commit: str) -> Source:
    return Source(git=str(repository.folder), commit=commit)


def test_a_commit_is_its_files_as_they_were(upstream: Callable[[str], Upstream]) -> None:
    repository = upstream("lib")
    (repository.folder / "run.sh").write_text("echo run\n")
    (repository.folder / "run.sh").chmod(0o755)
    (repository.folder / "link").symlink_to("/etc/hostname")
    (repository.folder / "folder-link").symlink_to("tests")
    (repository.folder / "tests").mkdir()
    (repository.folder / "tests" / "test_a.py").write_text("assert True\n")
    (repository.folder / ".gitattributes").write_text("tests export-ignore\n")
    base = repository.commit(a="old\n")
    repository.commit(a="new\n", b="later\n")
    members = _members(_source(repository, base))
    assert sorted(members) == [".gitattributes", "a", "folder-link", "link", "run.sh", "tests/test_a.py"]
    assert _text(_source(repository, base), "a") == "old\n"
    assert (members["run.sh"].mode, members["a"].mode) == (0o755, 0o644)
    assert (members["link"].linkname, members["folder-link"].linkname) == ("/etc/hostname", "tests")
    assert {member.mtime for member in members.values()} == {FIXED_TIME}


def test_a_commit_that_no_branch_reaches_any_more_is_asked_for_by_name(upstream: Callable[[str], Upstream]) -> None:
    repository = upstream("lib")
    repository.commit(a="1\n")
    abandoned = repository.commit(a="2\n")
    repository.git("reset", "-q", "--hard", "HEAD~1")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")
    assert _text(_source(repository, abandoned), "a") == "2\n"


def test_commits_that_come_later_are_fetched_too(upstream: Callable[[str], Upstream]) -> None:
    repository = upstream("lib")
    first = repository.commit(a="1\n")
    assert _text(_source(repository, first), "a") == "1\n"
    second = repository.commit(a="2\n")
    assert _text(_source(repository, second), "a") == "2\n"


def test_once_fetched_the_repository_is_needed_no_more(upstream: Callable[[str], Upstream]) -> None:
    repository = upstream("lib")
    source = _source(repository, repository.commit(a="1\n"))
    first = source_archive(source).content
    repository.folder.rename(repository.folder.with_name("gone"))
    assert source_archive(source).content == first
    assert source_identity(source) == f"git {source.commit}"


def test_submodules_are_files_at_the_commit_that_is_named(upstream: Callable[[str], Upstream]) -> None:
    inner, outer = upstream("inner"), upstream("outer")
    inner.commit(x="then\n")
    outer.git("submodule", "--quiet", "add", "../inner", "vendored/inner")
    base = outer.commit(a="1\n")
    inner.commit(x="now\n")
    source = _source(outer, base)
    assert sorted(_members(source)) == [".gitmodules", "a", "vendored/inner/x"]
    assert _text(source, "vendored/inner/x") == "then\n"


@pytest.mark.parametrize(
    ("parent", "url", "expected"),
    [
        ("https://host/a/b.git", "../c.git", "https://host/a/c.git"),
        ("https://host/a/b", "./c", "https://host/a/b/c"),
        ("git@host:a/b.git", "../c.git", "git@host:a/c.git"),
        ("https://host/a/b", "https://other/c", "https://other/c"),
    ],
)
def test_where_a_submodule_is(tmp_path: Path, parent: str, url: str, expected: str) -> None:
    (tmp_path / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {url}\n')
    assert _submodule_url(parent, tmp_path / ".gitmodules", "s") == expected


@pytest.mark.parametrize("url", ["/etc", "file:///etc", "../../../../etc", "ext::sh -c id"])
def test_a_remote_repository_cannot_have_this_host_s_files_as_a_submodule(tmp_path: Path, url: str) -> None:
    (tmp_path / ".gitmodules").write_text(f'[submodule "s"]\n\tpath = s\n\turl = {url}\n')
    with pytest.raises(UserError, match=r"source.git: the submodule s of https://host/r points to .*not a remote repository"):
        _submodule_url("https://host/r", tmp_path / ".gitmodules", "s")


def _crafted_tree(repository: Upstream, *entries: tuple[str, str, str]) -> str:
    """A tree of (mode, name, object), also one that git itself would not write."""
    content = b"".join(f"{mode} {name}".encode() + b"\0" + bytes.fromhex(found) for mode, name, found in entries)
    write = ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"]
    return subprocess.run(write, cwd=repository.folder, input=content, capture_output=True, check=True).stdout.decode().strip()


def test_a_crafted_commit_cannot_have_a_submodule_written_anywhere_on_this_host(
    upstream: Callable[[str], Upstream], tmp_path: Path
) -> None:
    """One name is a submodule that holds a link and also a folder: the second submodule in it would go where the link points."""
    (tmp_path / "victim" / "sub").mkdir(parents=True)
    inner, links, outer = upstream("inner"), upstream("links"), upstream("outer")
    planted = inner.commit(x="planted\n")
    (links.folder / "link").symlink_to(tmp_path / "victim")
    gitmodules = '[submodule "a"]\n\tpath = a\n\turl = ../links\n[submodule "b"]\n\tpath = a/link/sub\n\turl = ../inner\n'
    first = outer.commit(**{".gitmodules": gitmodules})
    folder = _crafted_tree(outer, ("40000", "link", _crafted_tree(outer, ("160000", "sub", planted))))
    names = outer.git("rev-parse", f"{first}:.gitmodules")
    tree = _crafted_tree(outer, ("100644", ".gitmodules", names), ("160000", "a", links.commit()), ("40000", "a", folder))
    outer.git("update-ref", "refs/heads/main", outer.git("commit-tree", tree, "-m", "crafted"))
    with pytest.raises(UserError, match=r"source.git: the submodule a/link/sub of .*outer lies behind a link"):
        source_archive(_source(outer, outer.git("rev-parse", "main")))
    assert list((tmp_path / "victim" / "sub").iterdir()) == []


def test_no_file_of_this_host_is_read_for_a_repository_s_submodules(tmp_path: Path) -> None:
    (tmp_path / "host").write_text('[submodule "s"]\n\tpath = s\n\turl = https://of.the/host\n')
    (tmp_path / ".gitmodules").symlink_to(tmp_path / "host")
    with pytest.raises(UserError, match=r"source.git: the .gitmodules of https://host/r is a link"):
        _submodule_url("https://host/r", tmp_path / ".gitmodules", "s")
    (tmp_path / ".gitmodules").unlink()
    (tmp_path / ".gitmodules").write_text(f"[include]\n\tpath = {tmp_path}/host\n")
    with pytest.raises(UserError, match="does not say where it comes from"):
        _submodule_url("https://host/r", tmp_path / ".gitmodules", "s")


def test_what_cannot_be_fetched_is_named(upstream: Callable[[str], Upstream], tmp_path: Path) -> None:
    repository = upstream("lib")
    repository.commit(a="1\n")
    missing = "0123456789" * 4
    with pytest.raises(UserError, match=rf"source.commit: .*lib has no commit {missing} on any branch or tag"):
        source_archive(_source(repository, missing))
    with pytest.raises(UserError, match=r"source.git: could not fetch .*nowhere: "):
        source_archive(Source(git=str(tmp_path / "nowhere"), commit=missing))
    with pytest.raises(UserError, match=r"source.git: ext::sh -c id is not a way to fetch that is allowed"):
        source_archive(Source(git="ext::sh -c id", commit=missing))


def test_no_trace_of_the_future_reaches_the_agent(
    client: DockerClient, base_image: str, upstream: Callable[[str], Upstream], make_task: MakeTask
) -> None:
    repository = upstream("planted")
    repository.commit(a="the first\n")
    base = repository.commit(a="broken\n")
    repository.commit(a=f"{FIX}\n", b=f"{FIX}, again\n")
    repository.git("tag", "v2")
    repository.git("branch", "fix")
    task = make_task(source={"git": str(repository.folder), "commit": base})
    search = """
import json, pathlib, zlib
found = []
for path in pathlib.Path("/").glob("testbed/**/*"):
    if path.is_file():
        data = path.read_bytes()
        found += [str(path)] * (b"of the future" in data)
        try:
            found += [str(path)] * (b"of the future" in zlib.decompress(data))
        except zlib.error:
            pass
print(json.dumps(found))
"""
    with DockerSandbox.start(client, build_image(client, task).tag) as sandbox:

        def said(command: str) -> str:
            result = sandbox.execute(command, timeout=60)
            assert result.returncode == 0, result.output
            return result.output.strip()

        sandbox.write_file("/tmp/search.py", search.encode())
        assert said("cat a") == "broken"
        assert said("git log --all --format=%s") == "start\nbase"
        assert said("git remote; git tag; git branch -a --format='%(refname:short)'; git stash list") == "master"
        assert said("git cat-file --batch-all-objects --batch-check='%(objecttype)' | sort | uniq -c | tr -s ' '") == (
            "1 blob\n 2 commit\n 1 tree"
        )
        assert said("git fsck --unreachable --no-reflogs 2>&1") == ""
        assert said("python3 /tmp/search.py") == "[]"
        sandbox.write_file("/testbed/planted", FIX.encode())
        sandbox.write_file("/testbed/packed", zlib.compress(FIX.encode()))
        found = "the search finds what is there"
        assert sorted(json.loads(said("python3 /tmp/search.py"))) == ["/testbed/packed", "/testbed/planted"], found
