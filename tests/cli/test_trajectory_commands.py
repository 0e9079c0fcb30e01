"""import, stats, export and audit, as a user calls them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import NO_DAEMON, ROOT, SHIPPED, one_object, run, trajectory
from docker import DockerClient

from swe_srl.trajectories.importing import load
from swe_srl.trajectories.storage import write_jsonl


def test_import_counts_what_it_did(tmp_path: Path) -> None:
    status, out, err = run("import", ROOT / "trajectories", "--to", tmp_path / "all.jsonl", "--max-steps", "9", "--json")
    report = one_object(out)
    assert report.keys() == {"read", "kept", "filtered", "filtered_by", "bad", "steps", "formats", "reasons"}
    assert status == 0
    short = [run for run in load([ROOT / "trajectories"]) if len(list(run.steps())) <= 9]
    assert (report["read"], report["kept"], report["filtered"], report["bad"]) == (12, len(short), 12 - len(short), 0)
    assert report["steps"] == sum(len(list(run.steps())) for run in short)
    assert report["reasons"] == []
    assert load([tmp_path / "all.jsonl"]) == short
    assert f"read 12 = kept {len(short)} + filtered {12 - len(short)} + bad 0" in err


def test_import_strictly_stops_at_the_first_bad_one(tmp_path: Path) -> None:
    shutil.copy(SHIPPED, tmp_path / "good.jsonl")
    (tmp_path / "other.json").write_text('{"some": "thing"}')
    status, out, err = run("import", tmp_path, "--to", tmp_path / "out" / "all.jsonl", "--strict")
    assert (status, out) == (1, "")
    assert err.strip().splitlines()[-1] == f"error: {tmp_path}/other.json: unknown format; top-level keys: some"
    assert list((tmp_path / "out").iterdir()) == []


def test_audit_scores_controls_and_samples(tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    status, out, err = run("audit", SHIPPED, "--steps", "3", "--report", page, "--json")
    found = one_object(out)
    assert (status, found["steps"]) == (0, 3), err
    assert [row["reward"] for row in found["orders"]][:1] == ["similarity"]
    assert "Largest disagreements" in page.read_text()
    samples = tmp_path / "samples.jsonl"
    step = found["disagreements"][0]["step"]
    samples.write_text(json.dumps({"step": step, "samples": [{"text": "no answer", "finish": "stop"}]}) + "\n")
    status, out, err = run("audit", SHIPPED, "--samples", samples, "--json")
    assert (status, one_object(out)["distributions"][0]["invalid"]) == (0, 1), err


def test_audit_says_what_it_cannot_do(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    assert (
        run("audit", SHIPPED, "--samples", samples)[2] == f"error: {samples}: no such file; name the samples.jsonl of a run\n"
    )
    samples.write_text('{"step": "gone@1", "samples": []}\n')
    status, _, err = run("audit", SHIPPED, "--samples", samples, "--json")
    assert (status, err.splitlines()[-1]) == (1, f"error: gone@1: no such step in {SHIPPED}")
    samples.write_text("{}\n")
    assert "line 1: is no group of samples" in run("audit", SHIPPED, "--samples", samples)[2]
    assert run("audit", SHIPPED, "--cluster", "ray")[2].startswith("error: --cluster says where effects are found: add --tasks")
    assert run("audit", SHIPPED, "--tasks", ROOT / "environments", env=NO_DAEMON)[2].startswith(
        "error: no Docker daemon answers"
    )


def test_stats_and_export_say_what_they_found_and_wrote(tmp_path: Path) -> None:
    runs = load([ROOT / "trajectories"])
    steps = sum(len(list(run.steps())) for run in runs)
    status, out, _ = run("stats", ROOT / "trajectories", "--report", tmp_path / "stats.html", "--json")
    overall = one_object(out)["overall"]
    assert f"<h1>{len(runs)} trajectories</h1>" in (tmp_path / "stats.html").read_text()
    assert (status, overall["trajectories"], overall["steps"]) == (0, len(runs), steps)
    to = tmp_path / "prompts.jsonl"
    status, out, _ = run("export", ROOT / "trajectories", "--to-format", "trl-prompt", "--to", to, "--json")
    assert (status, one_object(out)) == (
        0,
        {"format": "trl-prompt", "trajectories": len(runs), "rows": steps, "file": str(to), "bad": []},
    )
    assert len(to.read_text().splitlines()) == steps


def test_import_keeps_the_good_and_lists_the_bad(tmp_path: Path) -> None:
    source = tmp_path / "runs"
    source.mkdir()
    shutil.copy(SHIPPED, source / "good.jsonl")
    text = SHIPPED.read_bytes()
    (source / "cut.json").write_bytes(text[: len(text) // 2])
    (source / "latin.json").write_bytes(b'{"a": "\xe9"}')
    (source / "other.json").write_text('{"some": "thing"}')
    (source / "empty.traj").write_text("")
    status, out, err = run("import", source, "--to", tmp_path / "all.jsonl", "--json")
    report = one_object(out)
    assert status == 1
    assert (report["read"], report["kept"], report["filtered"], report["bad"]) == (5, 1, 0, 4)
    reasons = {Path(row["file"]).name: row["reason"] for row in report["reasons"]}
    assert sorted(reasons) == ["cut.json", "empty.traj", "latin.json", "other.json"]
    assert reasons["cut.json"].startswith("not JSON: Unterminated string")
    assert reasons["latin.json"].startswith("not UTF-8")
    assert reasons["other.json"].startswith("unknown format; top-level keys: some")
    for name, reason in reasons.items():
        assert f"error: {source / name}" in err
        assert reason in err
    assert load([tmp_path / "all.jsonl"]) == load([SHIPPED])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl", "--to", "all.jsonl"], "none.jsonl: no such file or folder"),
        ([SHIPPED, "--to", "all.jsonl", "--format", "yaml"], "--format yaml: unknown format; known: "),
        ([SHIPPED, "--to", "/proc/all.jsonl"], "/proc/all.jsonl: cannot be written: No such file or directory"),
    ],
)
def test_import_that_cannot_be_done(tmp_path: Path, arguments: list[str | Path], message: str) -> None:
    status, out, err = run("import", *arguments, cwd=tmp_path)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


def test_import_onto_a_full_disk(small_disk: Path) -> None:
    (small_disk / "all.jsonl").write_text("what stood there\n")
    status, out, err = run("import", ROOT / "trajectories", "--to", small_disk / "all.jsonl", "--json")
    assert (status, out) == (1, "")
    assert err.strip().splitlines()[-1] == f"error: {small_disk}/all.jsonl: cannot be written: No space left on device"
    assert [path.name for path in small_disk.iterdir()] == ["all.jsonl"]
    assert (small_disk / "all.jsonl").read_text() == "what stood there\n"


def test_a_run_folder_on_a_full_disk(client: DockerClient, base_image: str, small_disk: Path, tasks: Path) -> None:
    """What does not fit is reported and printed; the others are kept, and not run again once there is room."""
    (small_disk / "filler").write_bytes(b"x" * 40_000)
    noisy = trajectory("noisy", command="head -c 90000 /dev/zero | tr '\\0' x")
    write_jsonl(tasks.parent / "run.jsonl", [trajectory("a"), noisy, trajectory("z")])
    arguments = (
        "replay",
        tasks.parent / "run.jsonl",
        "--tasks",
        tasks,
        "--out",
        small_disk / "run",
        "--workers",
        "1",
        "--json",
    )
    status, out, err = run(*arguments)
    results = small_disk / "run" / "replay.jsonl"
    reason = f"its result could not be written to {results}: No space left on device"
    assert status == 1
    report = one_object(out)
    assert [(row["id"], row["steps"]) for row in report["trajectories"]] == [("a", 1), ("noisy", 1), ("z", 1)]
    assert report["failed"][0] == {"id": "noisy", "reason": reason}
    assert f"error: noisy: {reason}" in err
    written = results.read_bytes()
    assert [json.loads(line)["id"] for line in written.splitlines()] == ["a", "z"]

    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    status, out, err = run(*arguments)
    assert (status, one_object(out)["failed"]) == (0, [])
    assert "2 of 3 trajectories are replayed already" in err
    assert results.read_bytes().startswith(written)
    assert [json.loads(line)["id"] for line in results.read_bytes().splitlines()] == ["a", "z", "noisy"]
