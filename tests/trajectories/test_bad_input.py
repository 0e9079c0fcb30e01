"""Whatever a file holds, an import accounts for it: read = kept + filtered + bad, and what is kept reads back."""

from __future__ import annotations

import copy
import gzip
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from documents_of_every_format import DOCUMENTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swe_srl.errors import UserError
from swe_srl.trajectories.importing import Found, import_trajectories, load, run_import
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers import find_reader, unread_reason
from swe_srl.trajectories.sources import iter_sources

DEEP: Any = 0
for _ in range(500):
    DEEP = [DEEP]
GOOD = list(DOCUMENTS.values())
JUNK: list[Any] = [
    None, True, -1, 0.5, math.nan, 10**400, "", "[", "{}", "agent", "x" * 10_000, "\ud800", "</function>", [], [None], [[]], {},
    {"role": "user"}, {"content": {}}, {"type": "function_call"}, {"id": 0, "source": "agent", "action": "run"}, DEEP,
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, documents: list[Any]) -> Any:
    """A good document in which some values were replaced, removed, repeated or moved."""
    holder = {"": copy.deepcopy(draw(st.sampled_from(documents)))}
    for _ in range(draw(st.integers(1, 3))):
        node: Any = holder
        key: Any = ""
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 4)):
            node = node[key]
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        change = draw(st.sampled_from(["replace", "remove", "repeat", "reverse"]))
        if change == "remove" and node is not holder:
            del node[key]
        elif change == "repeat" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        elif change == "reverse" and isinstance(node, list):
            node.reverse()
        else:
            node[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return holder[""]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_good_document_of_every_format_is_read_and_reads_back(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    (tmp_path / "a.json").write_text(json.dumps(document))
    report = run_import([tmp_path / "a.json"], tmp_path / "out.jsonl")
    format_name = {"swe-smith-xml": "swe-smith", "openhands-v1": "openhands"}.get(name, name)
    assert (report.read, report.kept, list(report.formats)) == (1, 1, [format_name])
    assert report.steps == 1
    assert load([tmp_path / "out.jsonl"]) == load([tmp_path / "a.json"])


@settings(max_examples=2000, deadline=None)
@given(mutated(GOOD))
def test_mutilated_documents_are_read_or_refused_with_a_reason(document: Any) -> None:
    reader = find_reader(document)
    if reader is None:
        assert unread_reason(document)
        return
    try:
        run = reader.read(document, Origin("file"))
    except DocumentError:
        return
    for turn in run.turns:
        assert isinstance(turn.text, str)
        assert isinstance(turn.thought, str)
        if turn.action:
            assert turn.action.error is None or not turn.action.calls
            assert all(isinstance(call.arguments, dict) for call in turn.action.calls)


def accounted(path: Path) -> None:
    """An import of the file accounts for everything and keeps what reads back."""
    out = path.with_name("out.jsonl")
    out.unlink(missing_ok=True)
    report = run_import([path], out)
    assert report.read == report.kept + report.filtered + report.bad >= 1
    assert len(report.reasons) == report.bad
    assert all(bad.file == str(path) and bad.reason for bad in report.reasons)
    found = [item.trajectory for item in import_trajectories(iter_sources([path])) if isinstance(item, Found)]
    read_back = load([out]) if report.kept else []
    assert len(read_back) == report.kept
    assert read_back == [run for run in found if run.id in {kept.id for kept in read_back}]
    if report.bad:
        with pytest.raises(UserError):
            run_import([path], out, strict=True)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(mutated(list(DOCUMENTS.values())), min_size=1, max_size=3), st.sampled_from(["a.json", "a.jsonl", "a.jsonl.gz"])
)
def test_files_of_mutilated_documents_are_accounted_for(documents: list[Any], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        lines = [json.dumps(document).encode() for document in documents]
        whole = b"[" + b",".join(lines) + b"]" if name == "a.json" else b"\n".join(lines)
        path.write_bytes(gzip.compress(whole) if name.endswith(".gz") else whole)
        accounted(path)


def broken(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes cut, with some replaced, or in another encoding."""
    change = draw(st.sampled_from(["cut", "flip", "insert", "utf-16", "twice", "bom"]))
    place = draw(st.integers(0, len(raw)))
    junk = draw(st.sampled_from([b"\x00", b"\xff", b"\n", b'"', b"}", b"]", b",", b"NaN", b"\\ud800", b"[" * 2000]))
    return {
        "cut": raw[:place],
        "flip": raw[:place] + junk + raw[place + len(junk) :],
        "insert": raw[:place] + junk + raw[place:],
        "utf-16": raw.decode().encode("utf-16"),
        "twice": raw + raw,
        "bom": b"\xef\xbb\xbf" + raw,
    }[change]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(["a.json", "a.jsonl", "a.traj", "a.json.gz"]))
def test_broken_bytes_are_accounted_for(data: st.DataObject, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        raw = json.dumps(list(DOCUMENTS.values())[:4]).encode() if data.draw(st.booleans()) else b"\n".join(
            json.dumps(document).encode() for document in DOCUMENTS.values()
        )  # fmt: skip
        if name.endswith(".gz") and data.draw(st.booleans()):
            path.write_bytes(data.draw(st.composite(broken_gz)()))
        else:
            raw = data.draw(st.composite(broken)(raw))
            path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        accounted(path)


def broken_gz(draw: st.DrawFn) -> bytes:
    packed = gzip.compress(json.dumps(DOCUMENTS["adp"]).encode())
    return packed[: draw(st.integers(0, len(packed) - 1))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.real_data
def test_mutilated_real_files_are_accounted_for(real_data: Path, data: st.DataObject) -> None:
    folder = real_data / "trajectories"
    files = [
        min(path.glob("*"), key=lambda file: (file.stat().st_size, file)) for path in sorted(folder.iterdir()) if path.is_dir()
    ]
    chosen = data.draw(st.sampled_from(files))
    raw = chosen.read_bytes()
    with tempfile.TemporaryDirectory() as copied:
        path = Path(copied) / chosen.name
        if data.draw(st.booleans()):
            path.write_bytes(data.draw(st.composite(broken)(raw)))
        else:
            lines = raw.splitlines() if path.suffix == ".jsonl" else [raw]
            documents = [json.loads(line) for line in lines]
            path.write_text("\n".join(json.dumps(data.draw(mutated([document]))) for document in documents))
        accounted(path)


def test_duplicate_ids_and_lines_that_are_bad_are_each_reported(tmp_path: Path) -> None:
    row = DOCUMENTS["nebius-openhands"] | {"trajectory_id": "same"}
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps(row), "{", json.dumps(row), '{"x": NaN}']))
    places = [item for item in import_trajectories(iter_sources([path])) if not hasattr(item, "trajectory")]
    assert [(item.line, item.reason) for item in places] == [  # type: ignore[union-attr]
        (2, "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (3, f"duplicate id same (first in {path})"),
        (4, "not JSON: NaN is no JSON number"),
    ]
    with pytest.raises(UserError, match=r"a\.jsonl:2: not JSON"):
        run_import([path], tmp_path / "out.jsonl", strict=True)
