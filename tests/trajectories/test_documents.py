"""Every document of a file, or why not and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swe_srl.trajectories.documents import Document, Skipped, read_documents


def read(folder: Path, content: bytes, name: str = "file.json") -> list[Document | tuple[int | None, str]]:
    path = folder / name
    path.write_bytes(content)
    found = []
    for item in read_documents(path):
        if isinstance(item, Skipped):
            assert item.file == str(path)
            found.append((item.line, item.reason))
        else:
            found.append(item)
    return found


def test_one_document_an_array_or_one_a_line(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf {"a":\n 1}\n') == [Document({"a": 1})]
    assert read(tmp_path, b'[{"a": 1}, 2]') == [Document({"a": 1}, item=1), Document(2, item=2)]
    assert read(tmp_path, b"[1, 2]") == [Document([1, 2])]
    lines = b'\xef\xbb\xbf{"a": 1}\n\n{"a": "\xe2\x80\xa8"}'
    expected = [Document({"a": 1}, line=1), Document({"a": "\u2028"}, line=3)]
    assert read(tmp_path, lines, "file.jsonl") == expected
    assert read(tmp_path, lines, "file.json") == expected


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", None, "empty file"),
        (b" \n\n", None, "empty file"),
        (b"\xef\xbb\xbf", None, "empty file"),
        (b'{\n "a": 1,\n "b": [1', 3, "not JSON: Expecting ',' delimiter at line 3, column 9"),
        (b'{"a": 1} rest\n{}', 1, "not JSON: Extra data at line 1, column 10"),
        (b'{\n"a": 1}\n{}', 3, "not JSON: Extra data at line 3, column 1"),
        (b'\xef\xbb\xbf{"a": "\xff"}', None, "not UTF-8: byte 0xff at offset 10"),
        ('{"a": 1}'.encode("utf-16"), None, "not UTF-8: starts with the byte order mark of UTF-16"),
        (b'{"a": "\\ud83d"}', None, "text with half a surrogate pair (\\ud83d)"),
        (b'{"a": NaN}', None, "not JSON: NaN is no JSON number"),
        (b"[" * 100_000, None, "not JSON that can be read: nested too deeply"),
    ],
)
def test_bad_files_say_where_and_why(tmp_path: Path, content: bytes, line: int | None, reason: str) -> None:
    assert read(tmp_path, content) == [(line, reason)]


def test_whole_surrogate_pairs_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, b'{"a": "\\ud83d\\ude00"}') == [Document({"a": "\U0001f600"})]


def test_bad_lines_are_listed_among_the_good(tmp_path: Path) -> None:
    content = b'{"a": 1}\n{"a": \n\xc3\x28\n{"a": 4}\n'
    assert read(tmp_path, content, "file.jsonl") == [
        Document({"a": 1}, line=1),
        (2, "not JSON: Expecting value at column 6"),
        (3, "not UTF-8: byte 0xc3 at offset 16"),
        Document({"a": 4}, line=4),
    ]
    assert read(tmp_path, b"\n \n", "file.jsonl") == [(None, "empty file")]
    assert read(tmp_path, '{"a": 1}\n{}'.encode("utf-16"), "file.jsonl") == [
        (None, "not UTF-8: starts with the byte order mark of UTF-16")
    ]


def test_file_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "gone.json"
    assert list(read_documents(path)) == [Skipped(str(path), None, "cannot be read: No such file or directory")]


@given(content=st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ud8\n1e9', max_size=30).map(str.encode))
@pytest.mark.parametrize("name", ["file.json", "file.jsonl"])
def test_any_bytes_give_documents_or_reasons(tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes) -> None:
    found = read(tmp_path_factory.getbasetemp(), content, name)
    assert found
    assert all(isinstance(item, Document) or item[1] for item in found)
