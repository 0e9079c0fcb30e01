"""What rewards cost: text similarity beside difflib, a batch on 1 and 2 processes, the worst inputs, effects in real forks.

Each figure is measured here and now. Values are compared with difflib's in the same run; worst inputs run in a process of their
own, whose peak memory is taken above what it held before. Effects are those of controls (see `swe-srl audit`) of a trajectory's
steps, the steps before executed again, then everything once more from the cache.

    python benchmarks/rewards.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from statistics import fmean
from typing import Any

from process import forget_peak, memory
from tables import print_table

from swe_srl.config import EffectReward
from swe_srl.policy.format import parse_answer
from swe_srl.rewards import functional, similarity
from swe_srl.rewards.audit import eligible
from swe_srl.rewards.controls import controls
from swe_srl.rewards.text import similarities
from swe_srl.scaffolds import get_scaffold
from swe_srl.scaffolds.base import Action, ToolCall
from swe_srl.trajectories.importing import Found, import_trajectories
from swe_srl.trajectories.model import Step
from swe_srl.trajectories.sources import iter_sources

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SWE_SRL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "trajectories"
BATCH = 4096
CAP = 8000
KINDS = ("rewritten", "look-alike", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DATA), help="Trajectories whose actions are compared.")
    parser.add_argument("--steps", type=int, default=400, help="Steps whose actions are compared.")
    parser.add_argument("--trajectory", default=str(ROOT / "trajectories" / "ttlbox-expiry-edge.jsonl"), help="Of the effects.")
    parser.add_argument("--tasks", default=str(ROOT / "environments"), help="Tasks of the effects.")
    parser.add_argument("--effects", type=int, default=12, help="Steps whose effects are found; 0 for none.")
    parser.add_argument("--quick", action="store_true", help="40 steps, shorter worst inputs, 3 steps' effects.")
    parser.add_argument("--json", action="store_true", help="One JSON object on standard output.")
    parser.add_argument("--worst", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worst:
        print(json.dumps(_worst(*options.worst)))
        return
    if options.quick:
        options.steps, options.effects = min(options.steps, 40), min(options.effects, 3)
    pairs = _pairs(options.data, options.steps)
    report: dict[str, list[dict[str, Any]]] = {
        "similarity": list(beside_difflib(pairs)),
        "batch": list(batches([pair for found in pairs.values() for pair in found])),
        "worst inputs": list(worst_inputs(20_000 if options.quick else 1_000_000)),
    }
    if options.effects:
        report["effect"] = list(effects(options.trajectory, options.tasks, options.effects))
    if options.json:
        print(json.dumps(report))
        return
    for title, rows in report.items():
        print_table(title, rows)


def beside_difflib(pairs: dict[str, list[tuple[str, str]]]) -> Iterator[dict[str, Any]]:
    """One row a kind of pair: the mean time of one, by difflib and by us, one after the other."""
    both: list[tuple[float, float]] = []
    for kind, found in pairs.items():
        times = []
        for expert, sample in found:
            theirs, begun = _timed(lambda a=expert, b=sample: SequenceMatcher(None, a, b, autojunk=False).ratio())
            ours, taken = _timed(lambda a=expert, b=sample: similarity(a, b))
            assert ours == theirs, (expert, sample)
            times.append((begun, taken))
        both += times
        yield _beside(kind, times)
    yield _beside("all", both)


def batches(pairs: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """A batch of real pairs, and one of long ones (near 8,000 characters), on 1 and 2 processes."""
    rng = random.Random(0)
    long = [(text := "".join(rng.choices("abcdefgh (),=\n", k=8000)), text[:4000] + "x" * 40 + text[4200:]) for _ in range(64)]
    for name, some in (("real actions", rng.choices(pairs, k=BATCH)), ("8,000 characters each", long)):
        values = None
        for processes in (1, 2):
            found, seconds = _timed(lambda p=processes, s=some: similarities(s, processes=p))
            assert values in (None, found)
            values = found
            yield {"batch": name, "samples": len(some), "processes": processes, "s": round(seconds, 3)}


def worst_inputs(size: int) -> Iterator[dict[str, Any]]:
    """Inputs that cost most, with and without a cap; without one only as long as it stays bearable."""
    for name in ("one letter", "two letters in turn", "random of 4 letters"):
        for how, length in ((f"cap {CAP}", size), ("no cap", min(size, 20_000))):
            yield {"input": name, "reward": "similarity", "characters": length, "how": how, **_apart(name, length, how)}
    for name in ("one command again and again", "one long argument", "open brackets"):
        yield {"input": name, "reward": "functional", "characters": size, "how": "", **_apart(name, size, "functional")}


def effects(trajectory: str, tasks: str, count: int) -> Iterator[dict[str, Any]]:
    """Effects a second, cold and warm, and how much of it the actions' own commands are."""
    from swe_srl.rewards.executing import effect_values, open_forks

    steps = _steps(trajectory)[:count]
    others = _steps(str(ROOT / "trajectories"))
    wanted = []
    for step in steps:
        found = controls(step, others, random.Random(step.id))
        tools = get_scaffold(step.trajectory.scaffold).tools
        answers = [parse_answer(text, tools) for kind in KINDS for text in found[kind]]  # type: ignore[index]
        wanted += [(step, answer.action) for answer in answers if answer.action]
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("cold", "warm"):
            forks = open_forks(EffectReward(tasks=[tasks], cache=folder))
            values, seconds = _timed(lambda f=forks: effect_values(f, wanted))
            spent = forks.spent
            yield {
                "cache": cache,
                "steps": len(steps),
                "actions": len(values),
                "executed": spent.executed,
                "from the cache": spent.cached,
                "s": round(seconds, 2),
                "values a second": round(len(values) / seconds, 2),
                "commands s": round(spent.command_seconds, 2),
                "forks s": round(spent.fork_seconds, 2),
                "commands share": round(spent.command_seconds / ((spent.command_seconds + spent.fork_seconds) or 1), 3),
            }


def _pairs(data: str, count: int) -> dict[str, list[tuple[str, str]]]:
    steps = _steps(data)
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in KINDS}
    for step in random.Random(0).sample(steps, min(count, len(steps))):
        answers = controls(step, steps, random.Random(step.id))
        tools = get_scaffold(step.trajectory.scaffold).tools
        expert = parse_answer(answers["expert"][0], tools).action_text
        for kind in KINDS:
            found[kind] += [(expert, parse_answer(text, tools).action_text) for text in answers[kind]]  # type: ignore[index]
    return found


def _steps(source: str) -> list[Step]:
    return list(eligible(found.trajectory for found in import_trajectories(iter_sources([source])) if isinstance(found, Found)))


def _beside(kind: str, times: list[tuple[float, float]]) -> dict[str, Any]:
    theirs, ours = (fmean(column) for column in zip(*times, strict=True))
    row = {"pair": kind, "pairs": len(times), "difflib ms": round(theirs * 1e3, 3), "ours ms": round(ours * 1e3, 3)}
    return {**row, "times faster": round(theirs / ours, 1), "values": "equal"}


def _apart(name: str, size: int, how: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--worst", name, str(size), how], capture_output=True, text=True, check=True
    )
    row: dict[str, Any] = json.loads(done.stdout)
    return row


def _worst(name: str, size: str, how: str) -> dict[str, Any]:
    """Time and memory of one of the worst inputs."""
    length, rng = int(size), random.Random(0)
    texts = {
        "one letter": ("a" * length, "a" * (length - 1) + "b" + "a"),
        "two letters in turn": ("ab" * (length // 2), "ba" * (length // 2 - 1) + "c"),
        "random of 4 letters": tuple("".join(rng.choices("abcd", k=length)) for _ in range(2)),
        "one command again and again": ("cat a.py", "cat a.py; " * (length // 10)),
        "one long argument": ("python -c 'x'", f"python -c '{'ab' * (length // 2)}'"),
        "open brackets": ("cat a.py", "$(" * (length // 2)),
    }
    expert, sample = texts[name]
    similarity("a", "b")
    functional(_bash("a"), _bash("b"))
    forget_peak()
    before = memory("VmRSS")
    if how == "functional":
        _, seconds = _timed(lambda: functional(_bash(expert), _bash(sample)))
    else:
        _, seconds = _timed(lambda: similarity(expert, sample, cap=CAP if how.startswith("cap") else None))
    peak = memory("VmHWM") - before
    return {"s": round(seconds, 3), "peak MB": round(peak / 1e6, 1)}


def _bash(command: str) -> Action:
    return Action((ToolCall("bash", {"command": command}),))


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begun


if __name__ == "__main__":
    main()
