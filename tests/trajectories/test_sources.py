"""Which files an import reads, in which order, under which names."""

from __future__ import annotations

from pathlib import Path

import pytest

from swe_srl.errors import UserError
from swe_srl.trajectories.sources import iter_sources


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_folders_give_what_ends_like_a_trajectory_in_order(tmp_path: Path) -> None:
    make(tmp_path, "b.json", "a/z.jsonl", "a/c.traj", "d.traj.json", "task.toml", "notes.md", "x.py", "e.json.bak")
    sources = iter_sources([tmp_path])
    assert [str(source.path.relative_to(tmp_path)) for source in sources] == ["a/c.traj", "a/z.jsonl", "b.json", "d.traj.json"]
    assert [source.stem for source in sources] == ["c", "z", "b", "d"]


def test_a_file_named_outright_may_end_with_anything_and_comes_once(tmp_path: Path) -> None:
    make(tmp_path, "run.log", "a.json")
    sources = iter_sources([tmp_path / "run.log", tmp_path, tmp_path / "a.json", str(tmp_path / "*.json")])
    assert [source.path.name for source in sources] == ["a.json", "run.log"]


def test_compressed_files_and_tables_are_sources_under_their_plain_names(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl.gz", "b.traj.json.zst", "c.parquet", "d.parquet.gz", "e.gz")
    assert [source.stem for source in iter_sources([tmp_path])] == ["a", "b", "c"]


def test_data_sets_of_the_hub_are_sources_after_the_files(tmp_path: Path) -> None:
    make(tmp_path, "a.json")
    sources = iter_sources(["hf:owner/set:train", tmp_path, "hf:owner/set:train"])
    assert [(str(source.path), source.stem) for source in sources[1:]] == [("hf:owner/set:train", "owner--set--train")]


def test_patterns_reach_into_folders(tmp_path: Path) -> None:
    make(tmp_path, "x/1/a.traj", "x/2/b.traj", "y/c.traj")
    assert [source.stem for source in iter_sources([str(tmp_path / "x" / "**" / "*.traj")])] == ["a", "b"]
    assert [source.stem for source in iter_sources([str(tmp_path / "?")])] == ["a", "b", "c"]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    make(tmp_path, "one/lib-1/lib-1.traj", "two/lib-1/lib-1.traj", "two/lib-2/lib-2.traj")
    assert [source.stem for source in iter_sources([tmp_path])] == ["one--lib-1--lib-1", "two--lib-1--lib-1", "lib-2"]


def test_excluded_files_are_no_sources(tmp_path: Path) -> None:
    make(tmp_path, "a.json", "out.jsonl")
    assert [source.stem for source in iter_sources([tmp_path], exclude=[tmp_path / "out.jsonl"])] == ["a"]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "notes.md")
    with pytest.raises(UserError, match=r"no \*\.traj\.json, \*\.jsonl, \*\.json, \*\.traj, \*\.parquet in "):
        iter_sources([tmp_path])
    with pytest.raises(UserError, match="missing: no such file or folder"):
        iter_sources([tmp_path / "missing"])
    with pytest.raises(UserError, match="no such file or folder"):
        iter_sources([str(tmp_path / "*.traj")])
