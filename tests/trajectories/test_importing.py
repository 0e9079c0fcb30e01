"""Imports: every document is kept, filtered out, or reported; the file is whole or not there."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.atif import to_atif
from swe_srl.trajectories.choosing import Filters
from swe_srl.trajectories.documents import Skipped
from swe_srl.trajectories.importing import import_trajectories, load, run_import
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin
from swe_srl.trajectories.readers import find_reader, unread_reason
from swe_srl.trajectories.sources import iter_sources
from swe_srl.trajectories.storage import write_jsonl

LS = Turn("agent", "", "", Action((ToolCall("bash", {"command": "ls"}, "c1"),)))
MINI: dict[str, Any] = {
    "info": {"mini_version": "1.15.0", "config": {"environment": {"env": {"PAGER": "cat"}, "timeout": 60}}},
    "messages": [
        {"role": "user", "content": "Fix it."},
        {
            "role": "assistant",
            "content": "```bash\nls\n```",
            "extra": {"response": {"choices": [{"message": {"content": "x"}}]}},
        },
        {"role": "user", "content": "<returncode>0</returncode>\n<output>\n</output>"},
    ],
    "trajectory_format": "mini-swe-agent-1",
    "instance_id": "lib-7",
}
CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
SWE_AGENT: dict[str, Any] = {
    "history": [
        {"role": "user", "content": [{"type": "text", "text": "Fix it."}], "is_demo": False},
        {"role": "assistant", "content": "a", "thought": "a", "action": "ls", "tool_calls": [CALL], "thinking_blocks": []},
        {"role": "tool", "content": "x", "tool_call_ids": ["c1"]},
    ],
    "trajectory": [{"action": "ls", "observation": "x", "response": "a", "thought": "a", "state": {}, "execution_time": 1}],
    "info": {"exit_status": "submitted", "submission": "diff"},
    "replay_config": {
        "agent": {
            "model": {"name": "m"},
            "tools": {"env_variables": {"A": 1}, "execution_timeout": 30, "parse_function": {"type": "function_calling"}},
        },
        "problem_statement": {"id": "lib-7"},
    },
}
ATIF = {
    "schema_version": "ATIF-v1.2",
    "session_id": "s-1",
    "agent": {"name": "walker", "version": "1", "extra": {"task": "lib-7"}},
    "steps": [
        {
            "step_id": 1,
            "source": "agent",
            "message": [{"type": "text", "text": "a"}, {"type": "image", "source": {"path": "p"}}],
            "reasoning_content": "b",
            "tool_calls": [{"tool_call_id": "c", "function_name": "run", "arguments": {"cmd": "ls"}, "extra": {}}],
            "observation": {"results": [{"source_call_id": "c", "content": "x"}]},
            "is_copied_context": False,
        }
    ],
}


def trajectory(name: str, steps: int = 1, **fields: Any) -> Trajectory:
    return Trajectory(name, "lib-7", "mini-swe-agent", "mini-swe-agent-1", (LS,) * steps, **fields)


def put(path: Path, *documents: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, documents)) + "\n")
    return path


def test_report_counts_every_trajectory_once(tmp_path: Path) -> None:
    source = tmp_path / "in"
    put(source / "a.json", MINI)
    put(source / "b.traj", SWE_AGENT)
    put(source / "c.jsonl", to_atif(trajectory("c1", 3)), to_atif(trajectory("c2", 9)), {"schema_version": "ATIF-v1.8"})
    put(source / "index.jsonl", {"file": "a", "resolved": True}, {"file": "b", "resolved": True})
    (source / "cut.json").write_text('{"info": {},\n"messages": [')
    put(source / "again.jsonl", to_atif(trajectory("a")))
    report = run_import([source], tmp_path / "out" / "all.jsonl", Filters(max_steps=3))
    assert asdict(report) == {
        "read": 8,
        "kept": 3,
        "filtered": 1,
        "bad": 4,
        "steps": 5,
        "formats": {
            "mini-swe-agent-1": {"trajectories": 2, "steps": 4, "malformed": 0},
            "swe-agent": {"trajectories": 1, "steps": 1, "malformed": 0},
        },
        "filtered_by": {"too many steps": 1},
        "reasons": [
            {
                "file": str(source / "again.jsonl"),
                "line": 1,
                "reason": f"duplicate id a (first in {source / 'a.json'})",
            },
            {"file": str(source / "c.jsonl"), "line": 3, "reason": "atif: steps: expected array, found null"},
            {
                "file": str(source / "cut.json"),
                "line": 2,
                "reason": "not JSON: Expecting value at line 2, column 14",
            },
            {
                "file": str(source / "index.jsonl"),
                "line": None,
                "reason": "unknown format; top-level keys: file, resolved (2 rows)",
            },
        ],
    }
    assert [item.id for item in load([tmp_path / "out" / "all.jsonl"])] == ["a", "b", "c1"]


def test_rows_that_are_not_read_are_listed_where_others_are(tmp_path: Path) -> None:
    path = put(tmp_path / "rows.jsonl", {"meta": 1}, to_atif(trajectory("a")), {"meta": 2})
    bad = [item for item in import_trajectories(iter_sources([path])) if isinstance(item, Skipped)]
    assert bad == [Skipped(str(path), line, "unknown format; top-level keys: meta") for line in (1, 3)]
    array = tmp_path / "array.json"
    array.write_text(json.dumps([to_atif(trajectory("a")), {"meta": 1}, MINI | {"messages": []}]))
    found = list(import_trajectories(iter_sources([array])))
    assert found[1:] == [
        Skipped(str(array), None, "item 3: mini-swe-agent-1: messages: empty"),
        Skipped(str(array), None, "item 2: unknown format; top-level keys: meta"),
    ]


def test_runs_of_one_task_in_two_folders_are_both_kept(tmp_path: Path) -> None:
    put(tmp_path / "one" / "lib-7.traj.json", MINI)
    put(tmp_path / "two" / "lib-7.traj.json", MINI)
    assert [(item.id, item.task_id) for item in load([tmp_path])] == [("one--lib-7", "lib-7"), ("two--lib-7", "lib-7")]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(), ["none", "solved", "unsolved", "b"]),
        (Filters(resolved_only=True), ["solved"]),
        (Filters(min_steps=2), ["solved", "unsolved"]),
        (Filters(max_steps=1), ["none", "b"]),
        (Filters(min_steps=2, max_steps=2), ["solved"]),
        (Filters(formats=frozenset({"swe-agent"})), ["b"]),
    ],
)
def test_filters(tmp_path: Path, filters: Filters, kept: list[str]) -> None:
    rows = [trajectory("none"), trajectory("solved", 2, resolved=True), trajectory("unsolved", 3, resolved=False)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    put(tmp_path / "b.traj", SWE_AGENT)
    report = run_import([tmp_path], tmp_path / "out.jsonl", filters)
    assert [item.id for item in load([tmp_path / "out.jsonl"])] == kept
    assert (report.read, report.kept, report.filtered, report.bad) == (4, len(kept), 4 - len(kept), 0)


def test_impossible_filters_are_refused() -> None:
    with pytest.raises(
        UserError, match="--format aider: unknown format; known: atif, mini-swe-agent-1, mini-swe-agent-2, swe-agent"
    ):
        Filters(formats=frozenset({"aider"}))
    with pytest.raises(UserError, match="--min-steps 3 is more than --max-steps 2"):
        Filters(min_steps=3, max_steps=2)


def test_import_into_a_source_folder_does_not_read_its_own_output(tmp_path: Path) -> None:
    put(tmp_path / "a.json", MINI)
    for _ in range(2):
        assert run_import([tmp_path], tmp_path / "out.jsonl").read == 1


def test_when_nothing_is_kept_the_old_file_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    report = run_import([put(tmp_path / "a.json", {"x": 1})], out)
    assert (report.read, report.bad, out.read_text()) == (1, 1, "old")


def test_what_cannot_be_written_is_bad(tmp_path: Path) -> None:
    infinite = tmp_path / "a.json"
    infinite.write_text(json.dumps(MINI | {"cost": 0}).replace('"cost": 0', '"cost": 1e999'))
    report = run_import([infinite, put(tmp_path / "b.json", MINI)], tmp_path / "out.jsonl")
    assert report.reasons == [
        Skipped(str(infinite), None, "cannot be written as ATIF: Out of range float values are not JSON compliant")
    ]
    assert report.kept == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"out\.jsonl: cannot be written"):
        run_import([tmp_path / "b.json"], tmp_path / "file" / "out.jsonl")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    def trajectories() -> Iterator[Trajectory]:
        yield trajectory("a")
        raise KeyboardInterrupt

    out = tmp_path / "out.jsonl"
    assert write_jsonl(out, [trajectory("old")]) == 1
    with pytest.raises(KeyboardInterrupt):
        write_jsonl(out, trajectories())
    assert [item.id for item in load([out])] == ["old"]
    assert list(tmp_path.iterdir()) == [out]


def test_load_refuses_bad_input_unless_told_otherwise(tmp_path: Path) -> None:
    path = put(tmp_path / "a.jsonl", to_atif(trajectory("a")), {"x": 1})
    with pytest.raises(UserError, match=r"a\.jsonl:2: unknown format; top-level keys: x"):
        load([path])
    assert [item.id for item in load([path], skip_bad=True)] == ["a"]
    with pytest.raises(UserError, match="no trajectory in "):
        load([put(tmp_path / "b.json", {"x": 1})], skip_bad=True)


def test_progress_sees_every_source(tmp_path: Path) -> None:
    put(tmp_path / "a.json", MINI)
    put(tmp_path / "b.json", {"x": 1})
    seen = []
    run_import([tmp_path], tmp_path / "out.jsonl", track=lambda sources: (seen.append(s.stem) or s for s in sources))
    assert seen == ["a", "b"]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"schema_version": "ATIF-v2.0", "steps": []}, "ATIF of version 'ATIF-v2.0' (1.0 to 1.8 are read): this format is not"),
        ({"history": [{"role": "user"}]}, "SWE-agent without tool calls (thought-action or XML): this format is not read yet"),
        ({"trajectory_format": "aider-2"}, "aider-2: this format is not read yet"),
        ({"responses_create_params": {}}, "unknown format; top-level keys: responses_create_params"),
        ({"model_patch": "", "instance_id": "x"}, "SWE-bench predictions (patches without steps): this format is not read yet"),
        ({str(i): i for i in range(9)}, "unknown format; top-level keys: 0, 1, 2, 3, 4, 5, 6, 7, …"),
        ({}, "unknown format: an empty object"),
        ([], "unknown format: a JSON array, no object"),
        (None, "unknown format: a JSON value, no object"),
    ],
)
def test_formats_that_are_not_read_are_named(document: object, reason: str) -> None:
    assert find_reader(document) is None
    assert unread_reason(document).startswith(reason)


JUNK: list[Any] = [None, True, -1, 0.5, 10**400, "", "[", "agent", [], [None], [[]], {}, {"role": "user"}, {"content": {}}]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good document in which some values were replaced or removed."""
    holder = {"": copy.deepcopy(draw(st.sampled_from([MINI, SWE_AGENT, ATIF, to_atif(trajectory("a", 2, resolved=True))])))}
    for _ in range(draw(st.integers(1, 3))):
        node: Any = holder
        key: Any = ""
        while isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
            node = node[key]
            key = draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if node is not holder and draw(st.booleans()):
            del node[key]
        else:
            node[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    return holder[""]


@settings(max_examples=1000, deadline=None)
@given(mutated())
def test_mutilated_documents_are_read_or_refused_with_a_reason(document: Any) -> None:
    reader = find_reader(document)
    if reader is None:
        assert unread_reason(document)
        return
    with contextlib.suppress(DocumentError):
        read = reader.read(document, Origin("file"))
        assert all(isinstance(turn.text, str) and isinstance(turn.thought, str) for turn in read.turns)
        assert all(turn.action.error is None or not turn.action.calls for turn in read.turns if turn.action)
