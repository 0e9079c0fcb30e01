"""Compressed files, parquet tables and data sets: the same trajectories as from plain files, one row at a time."""

from __future__ import annotations

import datetime
import gzip
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from documents_of_every_format import DOCUMENTS

from swe_srl.trajectories.documents import Document, Skipped, read_documents
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.tables import plain

ROWS = [
    DOCUMENTS["nebius-openhands"] | {"trajectory_id": f"t{i}", "score": score} for i, score in enumerate([0.5, math.nan, None])
]


@pytest.fixture
def expected(tmp_path: Path) -> list[Any]:
    path = tmp_path / "plain" / "a.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(json.dumps(plain(row)) for row in ROWS))
    return load([path])


def write_parquet(path: Path, rows: list[Any] = ROWS) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist([{**row, "tools": None} for row in rows]), path)
    return path


def steps(trajectories: list[Any]) -> list[Any]:
    return [(item.id, item.turns, item.resolved, item.extra.get("score")) for item in trajectories]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.json.zst"])
def test_compressed_files(name: str, tmp_path: Path, expected: list[Any]) -> None:
    zstd = pytest.importorskip("backports.zstd")
    lines = [json.dumps(plain(row)) for row in ROWS]
    raw = ("\n".join(lines) if "jsonl" in name else f"[{','.join(lines)}]").encode()
    pack = gzip.compress if name.endswith(".gz") else zstd.compress
    (tmp_path / name).write_bytes(pack(raw))
    assert load([tmp_path / name]) == expected
    (tmp_path / name).write_bytes(pack(raw)[:-20])
    *_, last = read_documents(tmp_path / name)
    assert isinstance(last, Skipped)
    assert last.reason.startswith(("cannot be decompressed: ", "not JSON"))
    (tmp_path / name).write_bytes(b"no such thing")
    (only,) = read_documents(tmp_path / name)
    assert isinstance(only, Skipped)
    assert only.reason.startswith(("cannot be decompressed: ", "cannot be read: "))


def test_parquet(tmp_path: Path, expected: list[Any]) -> None:
    assert steps(load([write_parquet(tmp_path / "a.parquet")])) == steps(expected)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no table")
    (only,) = read_documents(tmp_path / "b.parquet")
    assert isinstance(only, Skipped)
    assert only.reason.startswith("cannot be read after 0 rows: ")
    assert list(read_documents(write_parquet(tmp_path / "c.parquet", []))) == [
        Skipped(str(tmp_path / "c.parquet"), None, "empty table")
    ]


def test_data_sets_come_through_datasets_by_split(tmp_path: Path, expected: list[Any]) -> None:
    pytest.importorskip("datasets")
    write_parquet(tmp_path / "set" / "train.parquet", ROWS[:2])
    write_parquet(tmp_path / "set" / "test.parquet", ROWS[2:])
    assert steps(load([f"hf:{tmp_path}/set:train"])) == steps(expected)[:2]
    assert sorted(item.id for item in load([f"hf:{tmp_path}/set"])) == ["t0", "t1", "t2"]
    (only,) = read_documents(Path(f"hf:{tmp_path}/none:train"))
    assert isinstance(only, Skipped)
    assert only.reason.startswith("cannot be read after 0 rows: ")


def test_rows_hold_json_types_only() -> None:
    value = {"a": math.inf, "b": (1, b"x"), "c": datetime.date(2026, 1, 2), 4: [math.nan, 1.5, True]}
    assert plain(value) == {"a": None, "b": [1, "x"], "c": "2026-01-02", "4": [None, 1.5, True]}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_memory_does_not_grow_with_the_file(name: str, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        row = json.dumps({"messages": "x" * 100_000})
        (tmp_path / name).write_text(f"[{','.join([row] * count)}]" if name == "a.json" else "\n".join([row] * count))
        tracemalloc.start()
        assert sum(isinstance(item, Document) for item in read_documents(tmp_path / name)) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(400) < 1.2 * peak(40)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('[{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
        (' [ {"a": 1} ] \n', [{"a": 1}]),
        ('[{"a": 1}, 2, {"a": 3}]', [{"a": 1}, 2, {"a": 3}]),
        ("[1, 2]", [[1, 2]]),
        ("[]", [[]]),
        ('[{"a": 1},]', [{"a": 1}, "not JSON: Illegal trailing comma before end of array at line 1, column 10"]),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, "not JSON: Expecting ',' delimiter at line 1, column 11"]),
        ('[{"a": 1}, {"a": NaN}]', [{"a": 1}, "not JSON: NaN is no JSON number"]),
        ('[{"a": 1}, {"a": "\\ud800"}]', [{"a": 1}, "text with half a surrogate pair (\\ud800)"]),
        ('[{"a": 1}] x', [{"a": 1}, "not JSON: Extra data at line 1, column 12"]),
        ('[{"a": 1}', [{"a": 1}, "not JSON: Expecting ',' delimiter at line 1, column 10"]),
    ],
)
def test_arrays_are_read_item_by_item_up_to_what_is_broken(text: str, values: list[Any], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    found = list(read_documents(tmp_path / "a.json"))
    shown = [item.value if isinstance(item, Document) else item.reason for item in found]
    if shown and isinstance(shown[-1], str) and isinstance(values[-1], str):
        assert shown[-1].split(" at ")[0].split(":")[0] == values[-1].split(" at ")[0].split(":")[0]
        shown, values = shown[:-1], values[:-1]
    assert shown == values
