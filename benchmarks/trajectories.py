"""What trajectories cost: reading them, opening their steps, tokenising every step's prompt, beside the straightforward ways.

Each figure is measured here and now, in a process of its own; memory is the peak above what the process held before the work.
The straightforward ways are: hold all trajectories, then write them; tokenise each step's prompt by itself. That both ways of
tokenising give the same ids is checked in the same run (`ids`, a digest of all of them).

    python benchmarks/trajectories.py --quick --json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from process import forget_peak, memory
from tables import print_table

from swe_srl.scaffolds import get_scaffold, is_scaffold
from swe_srl.trajectories.importing import load, run_import
from swe_srl.trajectories.model import Step, Trajectory
from swe_srl.trajectories.storage import write_jsonl

DATA = Path(os.environ.get("SWE_SRL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "trajectories"
PAPER_STEPS = 134_000
POLICIES: dict[str, int | None] = {"full prefix": None, "last 2 pairs": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of trajectories.")
    parser.add_argument("--model", default="smollm2-135m", help="Whose tokenizer and chat template.")
    parser.add_argument("--every", type=int, default=1, help="Tokenise every n-th trajectory only.")
    parser.add_argument("--quick", action="store_true", help="Every 40th trajectory is tokenised; steps are opened once.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(_work(*options.work, options)))
        return
    if options.quick:
        options.every = 40
    report = {name: list(rows) for name, rows in _sections(options)}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for name, rows in report.items():
        print_table(name, rows)


def _sections(options: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    ways = {
        "import": ["json.loads alone", "held, then written", "streamed (swe-srl import)"],
        "open": ["1"] if options.quick else ["1", str(PAPER_STEPS)],
        **{f"tokenise, {policy}": ["each step by itself", "a trajectory's steps together"] for policy in POLICIES},
    }
    for section, names in ways.items():
        yield section, [_in_a_process(section, name, options) for name in names]


def _in_a_process(section: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    sys.stderr.write(f"{section}: {way}\n")
    command = [sys.executable, __file__, "--work", section, way, "--data", str(options.data)]
    done = subprocess.run(
        [*command, "--model", options.model, "--every", str(options.every)], check=True, stdout=subprocess.PIPE, text=True
    )
    return {"way": way, **json.loads(done.stdout)}


def _work(section: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    if section == "import":
        return _import(way, options.data)
    if section == "open":
        return _open(int(way), options.data)
    return _tokenise(POLICIES[section.removeprefix("tokenise, ")], way, options)


def _import(way: str, data: Path) -> dict[str, Any]:
    files = [path for path in data.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "all.jsonl"
        work: dict[str, Callable[[], object]] = {
            "json.loads alone": lambda: [_decode(path) for path in files],
            "held, then written": lambda: write_jsonl(to, load([data], skip_bad=True)),
            "streamed (swe-srl import)": lambda: run_import([data], to),
        }
        seconds, peak, _ = _measured(work[way])
    return {"MB": _mb(size), "seconds": round(seconds, 2), "MB/s": round(size / 1e6 / seconds, 1), "peak MB": peak}


def _decode(path: Path) -> None:
    text = path.read_text()
    for document in text.splitlines() if path.suffix == ".jsonl" else [text]:
        json.loads(document)


def _open(at_least: int, data: Path) -> dict[str, Any]:
    """Read the files again and again until there are so many steps, as objects that share nothing; then open the steps."""
    trajectories: list[Trajectory] = []
    steps = 0

    def read() -> None:
        nonlocal steps
        while steps < at_least:
            more = load([data], skip_bad=True)
            steps += sum(1 for trajectory in more for _ in trajectory.steps())
            trajectories.extend(more)

    seconds, _, _ = _measured(read)
    held = memory("VmRSS")
    opened: list[Step] = []
    opening, peak, _ = _measured(lambda: opened.extend(step for trajectory in trajectories for step in trajectory.steps()))
    return {
        "trajectories": len(trajectories),
        "steps": len(opened),
        "process MB": _mb(held),
        "MB for the steps": peak,
        "bytes a step": round(peak * 1e6 / len(opened)),
        "seconds to read": round(seconds, 1),
        "seconds to open": round(opening, 3),
    }


def _tokenise(last_pairs: int | None, way: str, options: argparse.Namespace) -> dict[str, Any]:
    from swe_srl.policy.encoding import SharedIds, StepEncoder
    from swe_srl.policy.model import load_tokenizer
    from swe_srl.policy.prompts import FittedPrompt, PromptOptions, encode_step

    tokenizer = load_tokenizer(options.model)
    read = [run for run in load([options.data], skip_bad=True) if is_scaffold(run.scaffold)][:: options.every]
    steps = [step for trajectory in read for step in trajectory.steps()]
    context = PromptOptions(last_pairs, max_observation_chars=10_000)

    def tools_for(step: Step) -> Sequence[Any]:
        return get_scaffold(step.trajectory.scaffold).tools

    def together() -> list[Sequence[int]]:
        prompts = StepEncoder(tokenizer, context, tools_for).encode(steps)
        return [prompt.ids for prompt in prompts if isinstance(prompt, FittedPrompt)]

    def each() -> list[Sequence[int]]:
        return [array("i", encode_step(step, tools_for(step), context, tokenizer)) for step in steps]

    # The tokenizer's first text takes longer.
    encode_step(steps[0], tools_for(steps[0]), context, tokenizer)
    seconds, peak, prompts = _measured(each if way == "each step by itself" else together)
    tokens = sum(map(len, prompts))
    parts = {id(part): len(part) for prompt in prompts if isinstance(prompt, SharedIds) for part in prompt.parts}
    return {
        "trajectories": len(read),
        "steps": len(steps),
        "prompt tokens": tokens,
        "tokens held": sum(parts.values()) or tokens,
        "seconds": round(seconds, 2),
        "prompt tokens/s": round(tokens / seconds),
        "peak MB": peak,
        "ids": _digest(prompts),
    }


def _digest(prompts: Iterable[Sequence[int]]) -> str:
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(array("i", [len(prompt), *prompt]).tobytes())
    return digest.hexdigest()[:16]


def _measured(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, the peak of memory above what was held before in MB, and what the work returned."""
    forget_peak()
    before, begun = memory("VmRSS"), time.perf_counter()
    result = work()
    seconds = time.perf_counter() - begun
    return seconds, _mb(memory("VmHWM") - before), result


def _mb(size: int) -> float:
    return round(size / 1e6, 1)


if __name__ == "__main__":
    main()
