"""Commands on trajectory files: import, stats, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from swe_srl.cli.options import Json, ResultsFile, Sources
from swe_srl.cli.output import output, report_failures, say, table_of, track
from swe_srl.errors import UserError


def import_(
    sources: Sources,
    to: Annotated[Path, typer.Option("--to", help="The ATIF JSON lines file to write.")],
    resolved_only: Annotated[bool, typer.Option(help="Keep only runs that are known to have solved their task.")] = False,
    results: ResultsFile = None,
    min_steps: Annotated[int | None, typer.Option(help="Keep only runs with at least this many steps.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Keep only runs with at most this many steps.")] = None,
    max_characters: Annotated[int | None, typer.Option(help="Keep only runs of at most this many characters.")] = None,
    formats: Annotated[list[str] | None, typer.Option("--format", help="Keep only these formats. Repeatable.")] = None,
    tools: Annotated[list[str] | None, typer.Option("--tool", help="Keep only runs that call no others. Repeatable.")] = None,
    repositories: Annotated[
        list[str] | None, typer.Option("--repository", help="Keep only runs on owner/name; * matches any. Repeatable.")
    ] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Keep only runs by this model; * matches any.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Drop the tasks whose ids a file lists, or swe-bench-verified. Repeatable.")
    ] = None,
    drop_duplicates: Annotated[
        str | None, typer.Option(help="exact: drop repeated runs. near: and runs of a task with 90% of the same actions.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first place that cannot be read.")] = False,
    as_json: Json = False,
) -> None:
    """Read expert trajectories of any known format and write them as ATIF JSON lines.

    Example: swe-srl import runs/ --to experts.jsonl --resolved-only --drop-duplicates near
    """
    from swe_srl.trajectories.choosing import Filters, excluded_tasks, load_results
    from swe_srl.trajectories.importing import run_import

    if drop_duplicates not in (None, "exact", "near"):
        raise UserError(f"--drop-duplicates {drop_duplicates}: expected exact or near")
    filters = Filters(
        resolved_only,
        min_steps,
        max_steps,
        frozenset(formats or ()),
        max_characters,
        frozenset(tools or ()),
        tuple(repositories or ()),
        tuple(models or ()),
        excluded_tasks(exclude or ()),
    )
    done = run_import(
        sources,
        to,
        filters,
        track=lambda found: track(found, "reading files"),
        results=load_results(results) if results else None,
        drop=cast(Literal["exact", "near"] | None, drop_duplicates),
        strict=strict,
    )
    counts = [{"format": name, **asdict(count)} for name, count in done.formats.items()]
    output(as_json, asdict(done), lambda: table_of(counts))
    filtered = "".join(f", {count} {reason}" for reason, count in done.filtered_by.items())
    say(f"read {done.read} = kept {done.kept} + filtered {done.filtered} + bad {done.bad}; {done.steps} steps{filtered}")
    places = [{"id": bad.place, "reason": bad.reason} for bad in done.reasons]
    if not done.kept:
        places.append({"id": str(to), "reason": "nothing was kept, so it was not written"})
    report_failures(places, "id")


def stats(
    sources: Sources,
    results: ResultsFile = None,
    tokens: Annotated[str | None, typer.Option(help="Count tokens with this model's tokenizer.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write histograms to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Count what trajectories hold: steps, tools, outcomes, lengths, malformed answers, duplicates; by format and overall.

    Example: swe-srl stats experts.jsonl --tokens Qwen/Qwen2.5-Coder-7B-Instruct --report stats.html
    """
    from swe_srl.report.statistics import write_statistics_report
    from swe_srl.report.trajectories import statistics_table
    from swe_srl.trajectories.choosing import load_results
    from swe_srl.trajectories.statistics import collect

    count = None
    if tokens is not None:
        from swe_srl.policy.model import load_tokenizer

        tokenizer = load_tokenizer(tokens)
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    loaded = load_results(results) if results else None
    found = collect(sources, results=loaded, count_tokens=count, track=lambda items: track(items, "reading files"))
    data = found.to_json()
    if report is not None:
        try:
            write_statistics_report(found, report)
        except OSError as error:
            raise UserError(f"{report}: cannot be written: {error.strerror or error}") from error
    output(as_json, data, lambda: statistics_table(data))
    report_failures([{"id": bad.place, "reason": bad.reason} for bad in found.bad], "id")


def export(
    sources: Sources,
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    to_format: Annotated[str, typer.Option(help="sft-chat, trl-prompt, verl (parquet), nemo-gym, adp or atif.")],
    as_json: Json = False,
) -> None:
    """Write trajectories in the format another trainer reads.

    Example: swe-srl export experts.jsonl --to-format sft-chat --to chat.jsonl
    """
    from swe_srl.trajectories.exporting import run_export

    done = run_export(sources, to, to_format, track=lambda found: track(found, "reading files"))
    counts = {"format": done.format, "trajectories": done.trajectories, "rows": done.rows, "file": str(to)}
    output(as_json, {**counts, "bad": [asdict(bad) for bad in done.bad]}, lambda: table_of([counts]))
    report_failures([{"id": bad.place, "reason": bad.reason} for bad in done.bad], "id")
