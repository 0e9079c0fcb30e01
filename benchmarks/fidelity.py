"""Replay every real run that has a task and set its fidelity beside that of a plain replay by `docker exec`.

    python benchmarks/fidelity.py [--data FOLDER] [--task ID …] [--workers N] [--out FOLDER] [--json]

Reads the tasks and the plain figures from FOLDER/tasks.jsonl (default: the variable SWE_SRL_DATA, else
../shared/data), changes the tasks as fidelity.toml says, and prints the table of docs/fidelity.md. The run folder has the
changed tasks and both texts of every step that differs. Ours counts the step that submits; the plain figures leave it out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from swe_srl.environments.run import ReplayOptions, replay_command
from swe_srl.trajectories.importing import Found, import_trajectories
from swe_srl.trajectories.sources import iter_sources

HERE = Path(__file__).parent
RECIPES: dict[str, Any] = tomllib.loads((HERE / "fidelity.toml").read_text(encoding="utf-8"))
COUNTS = ("exact", "plain", "any order", "plain", "return codes", "plain", "similarity", "plain")
COLUMNS = ("trajectory", "steps", *COUNTS, "what remains different")


def changed(row: Mapping[str, Any], changes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A task with the changes that name it. Raises ValueError for a change that does not fit."""
    new = dict(row)
    for change in changes:
        if row["instance_id"] not in change["tasks"]:
            continue
        commands = [*new["prepare"], *new["setup"]]
        for old in change.get("replace", {}):
            if old not in commands:
                raise ValueError(f"fidelity.toml: {row['instance_id']} has no command {old!r}")
        text = change.get("replace", {})
        new["prepare"] = [*(text.get(command, command) for command in new["prepare"]), *change.get("prepare", ())]
        setup = [text.get(command, command) for command in new["setup"]]
        new["setup"] = [*setup[:-1], *change.get("setup", ()), setup[-1]]
        if "sdist" in change:
            new["source"] = {"sdist": change["sdist"]}
    return new


def changed_tasks(data: Path, only: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The real tasks as fidelity.toml changes them; `only` some, where ids are given."""
    rows = [json.loads(line) for line in (data / "tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    return [changed(row, RECIPES["change"]) for row in rows if not only or row["instance_id"] in only]


def write_tasks(tasks: Iterable[Mapping[str, Any]], to: Path) -> None:
    """Write tasks as `swe-srl` reads them."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text("".join(json.dumps(task) + "\n" for task in tasks), encoding="utf-8")


def compared(plain: Mapping[str, Any], ours: Mapping[str, Any] | None, why: str) -> dict[str, Any]:
    """One trajectory's figures, ours and the plain ones. ours: None where it could not be replayed."""
    keys = ("steps", "exact", "exact_raw", "exact_unordered", "return_codes_matched", "return_codes_compared")
    keys += ("mean_similarity", "mean_similarity_raw", "submission_equal", "seconds", "error")
    names = ("steps", "exact", "exact_sorted", "return_codes_matched", "mean_similarity", "seconds", "final_patch_equal")
    return {
        "file": plain["file"],
        "ours": {key: ours[key] for key in keys} if ours else None,
        "plain": {name: plain[name] for name in names},
        "remains": why,
    }


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows in Markdown, with the sums of all."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join(['---'] * len(COLUMNS))} |"]
    sums = dict.fromkeys(("steps", "exact", "unordered", "plain steps", "plain exact", "plain sorted"), 0)
    for row in rows:
        ours, plain = row["ours"], row["plain"]
        if ours is None:
            lines.append(f"| {name(row['file'])} | not replayed |" + " |" * (len(COLUMNS) - 2))
            continue
        codes = f"{ours['return_codes_matched']}/{ours['return_codes_compared']}" if ours["return_codes_compared"] else "-"
        plain_codes = "-" if plain["return_codes_matched"] is None else f"{plain['return_codes_matched']}/{plain['steps']}"
        cells = (
            name(row["file"]),
            str(ours["steps"]),
            str(ours["exact"]),
            f"{plain['exact']}/{plain['steps']}",
            str(ours["exact_unordered"]),
            str(plain["exact_sorted"]),
            codes,
            plain_codes,
            f"{ours['mean_similarity']:.4f}",
            f"{plain['mean_similarity']:.4f}",
            row["remains"],
        )
        lines.append(f"| {' | '.join(cells)} |")
        sums["steps"] += ours["steps"]
        sums["exact"] += ours["exact"]
        sums["unordered"] += ours["exact_unordered"]
        sums["plain steps"] += plain["steps"]
        sums["plain sorted"] += plain["exact_sorted"]
        sums["plain exact"] += plain["exact"]
    exact = (str(sums["steps"]), str(sums["exact"]), f"{sums['plain exact']}/{sums['plain steps']}")
    total = (*exact, str(sums["unordered"]), str(sums["plain sorted"]))
    lines.append(f"| all | {' | '.join(total)} |" + " |" * (len(COLUMNS) - 6))
    return "\n".join(lines)


def name(file: str) -> str:
    """A trajectory's name in the table: without the words that all the demonstrations share."""
    stem = Path(file).name.removesuffix(".json").removesuffix(".traj").removeprefix("demo__replay__")
    repeated = "__marshmallow-code__marshmallow-1867"
    return stem.removesuffix(repeated) if stem.count(repeated[2:]) == 2 else stem


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("SWE_SRL_DATA", HERE.parents[1] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--task", action="append", help="only this task; repeatable")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (options.data / "tasks.jsonl").is_file():
        print(f"no tasks.jsonl in {options.data}: nothing to measure", file=sys.stderr)
        return 2
    tasks = changed_tasks(options.data, options.task)
    write_tasks(tasks, options.out / "tasks.jsonl")
    plain = [run for task in tasks for run in task["trajectories"]]
    files = {run["file"]: str(options.data / "trajectories" / run["file"]) for run in plain}
    ids = {
        result.file: result.trajectory.id
        for result in import_trajectories(iter_sources(files.values()))
        if isinstance(result, Found)
    }
    report = replay_command(
        list(files.values()),
        [options.out / "tasks.jsonl"],
        options.out,
        None,
        lambda text: print(text, file=sys.stderr),
        ReplayOptions(workers=options.workers),
    )
    ours = {replay.id: replay.summary() for replay in report.trajectories}
    rows = [
        compared(run, ours.get(ids.get(files[run["file"]], "")), RECIPES["remains"].get(name(run["file"]), "")) for run in plain
    ]
    print(json.dumps({"trajectories": rows, "failed": report.failed}, indent=1) if options.json else table(rows))
    for failure in report.failed:
        print(f"{failure['id']}: {failure['reason']}", file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
