"""Filters, results files, exclusions and duplicates: what is dropped, why, and how many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swe_srl.errors import UserError
from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.choosing import DuplicateFinder, Filters, excluded_tasks, load_results, repository
from swe_srl.trajectories.importing import load, run_import
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.statistics import collect, spread
from swe_srl.trajectories.storage import write_jsonl


def run(name: str, *commands: str, tool: str = "bash", task: str = "org__lib-7", **fields: Any) -> Trajectory:
    turns = [
        Turn("agent", "", "", Action((ToolCall(tool, {"command": command}, f"c{i}"),)), Observation("ok"))
        for i, command in enumerate(commands)
    ]
    return Trajectory(name, task, "mini-swe-agent", "mini-swe-agent-1", (Turn("user", "Fix it."), *turns), **fields)


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (Filters(), None),
        (Filters(tools=frozenset({"bash", "submit"})), None),
        (Filters(tools=frozenset({"submit"})), "other tools"),
        (Filters(repositories=("org/*",)), None),
        (Filters(repositories=("other/lib",)), "other repository"),
        (Filters(models=("claude-*",)), None),
        (Filters(models=("gpt-*",)), "other model"),
        (Filters(max_characters=35), None),
        (Filters(max_characters=24), "too long"),
        (Filters(excluded=frozenset({"org__lib-7"}), min_steps=9), "excluded task"),
        (Filters(min_steps=9), "too few steps"),
        (Filters(resolved_only=True), "not resolved"),
    ],
)
def test_rules(filters: Filters, reason: str | None) -> None:
    assert filters.reason(run("a", "ls", model="claude-x"), 1) == reason


@pytest.mark.parametrize(
    ("task", "extra", "name"),
    [
        ("django__django-13410", {}, "django/django"),
        ("scikit-learn__scikit-learn-1", {}, "scikit-learn/scikit-learn"),
        ("pandas-dev__pandas.95280573.pr_53652", {}, "pandas-dev/pandas"),
        ("x", {"repo": "a/b"}, "a/b"),
        ("x", {"instance": {"repo": "a/b"}}, "a/b"),
        ("ttlbox-expiry-edge", {}, None),
    ],
)
def test_repositories(task: str, extra: dict[str, Any], name: str | None) -> None:
    assert repository(run("a", task=task, extra=extra)) == name


@pytest.mark.parametrize(
    "rows",
    [
        [{"instance_id": "org__lib-7", "resolved": True}, {"instance_id": "org__lib-8", "resolved": False}],
        [{"resolved_ids": ["org__lib-7"], "unresolved_ids": ["org__lib-8"]}],
        [{"org__lib-7": True, "org__lib-8": {"resolved": False}}],
    ],
)
def test_results_files_give_the_outcome(rows: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    results = load_results(path)
    runs = [run("a"), run("b", task="org__lib-8", resolved=True), run("c", task="org__lib-9", resolved=True)]
    assert [results.applied(item, "x").resolved for item in runs] == [True, False, True]


def test_results_that_name_files_tell_the_runs_of_one_task_apart(tmp_path: Path) -> None:
    path = tmp_path / "index.jsonl"
    rows = [{"file": f"{name}/a.json", "instance_id": "org__lib-7", "resolved": name == "one"} for name in ("one", "two")]
    path.write_text("\n".join(map(json.dumps, rows)))
    results = load_results(path)
    assert [results.applied(run("a"), f"/data/{name}/a.json").resolved for name in ("one", "two", "three")] == [
        True,
        False,
        None,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"instance_id": "a", "resolved": true}\n{"instance_id": "a", "resolved": false}', "a is both resolved and not"),
        ('{"instance_id": "a"}', "no outcomes; expected rows with instance_id and resolved"),
        ("{", "not JSON"),
    ],
)
def test_results_that_say_nothing_or_two_things_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        load_results(path)
    with pytest.raises(UserError, match=r"--results .*none\.json: no such file"):
        load_results(tmp_path / "none.json")


def test_excluded_tasks_come_from_files_of_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    (tmp_path / "b.json").write_text('["three"]')
    (tmp_path / "c.jsonl").write_text('{"instance_id": "four", "repo": "x"}\n')
    assert excluded_tasks(str(tmp_path / name) for name in ("a.txt", "b.json", "c.jsonl")) == {"one", "two", "three", "four"}
    (tmp_path / "d.txt").write_text("\n")
    with pytest.raises(UserError, match="no task ids in it"):
        excluded_tasks([str(tmp_path / "d.txt")])
    with pytest.raises(UserError, match=r"no such file \(a file of task ids, or swe-bench-verified\)"):
        excluded_tasks(["swe-bench"])


NINE = tuple("abcdefghi")


def test_duplicates() -> None:
    finder = DuplicateFinder()
    assert finder.find(run("first", *NINE)) is None
    assert finder.find(run("same", *NINE)) == ("exact", "first")
    assert finder.find(replace(run("worded", *NINE), turns=(Turn("user", "Please."), *run("x", *NINE).turns[1:]))) == (
        "near",
        "first",
    )
    assert finder.find(run("one more", *NINE, "z")) == ("near", "first")
    assert finder.find(run("two more", *NINE, "y", "z")) is None
    assert finder.find(run("other task", *NINE, "z", task="org__lib-8")) is None
    assert finder.find(run("other tool", *NINE, tool="sh")) is None


@pytest.mark.parametrize(
    ("drop", "kept", "reasons"),
    [
        (None, ["a", "b", "c", "d"], {}),
        ("exact", ["a", "c", "d"], {"exact duplicate": 1}),
        ("near", ["a", "d"], {"exact duplicate": 1, "near duplicate": 1}),
    ],
)
def test_dropped_duplicates_are_counted(drop: Any, kept: list[str], reasons: dict[str, int], tmp_path: Path) -> None:
    path, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    write_jsonl(path, [run("a", *NINE), run("b", *NINE), run("c", *NINE, "z"), run("d", "x")])
    report = run_import([path], out, drop=drop)
    assert [item.id for item in load([out])] == kept
    assert report.filtered_by == reasons
    assert report.read == report.kept + sum(reasons.values()) == 4


def test_statistics(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    broken = replace(
        run("b", "pwd", resolved=False), turns=(*run("b", "pwd").turns, Turn("agent", "?", "", Action(error="none")))
    )
    write_jsonl(path, [run("a", "ls", "cat", resolved=True, model="m"), broken, run("c", "ls", "cat")])
    (tmp_path / "b.json").write_text("{")
    found = collect([tmp_path], count_tokens=lambda text: len(text.split()))
    data = found.to_json()
    overall = data["overall"]
    counts = {"files": 1, "trajectories": 3, "tasks": 1, "answers": 6, "steps": 5, "malformed": 1, "malformed_share": 1 / 6}
    assert {name: overall[name] for name in counts} == counts
    assert overall["outcomes"] == {"resolved": 1, "not resolved": 1, "unknown": 1}
    assert overall["duplicates"] == {"exact": 1, "near": 0}
    assert overall["tools"] == {"bash": 5}
    assert overall["lengths"]["steps"] == {"min": 1, "median": 2, "p90": 2, "max": 2, "mean": 5 / 3}
    assert overall["lengths"]["tokens"]["max"] == 4
    assert (overall["repositories"], overall["models"]) == ({"org/lib": 3}, {"unknown": 2, "m": 1})
    assert data["formats"] == {"mini-swe-agent-1": overall}
    assert [item["file"] for item in data["bad"]] == [str(tmp_path / "b.json")]


def test_spread_takes_the_nearest_rank() -> None:
    assert spread(list(range(1, 11))) == {"min": 1, "median": 5, "p90": 9, "max": 10, "mean": 5.5}
    assert spread([7]) == {"min": 7, "median": 7, "p90": 7, "max": 7, "mean": 7}
