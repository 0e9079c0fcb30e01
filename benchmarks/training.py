"""What an update costs: TRL's GRPOTrainer, separate sequences and one tree, on the same model, batch and seed.

- updates: all ways on a 4-layer model and on SmolLM2-135M-Instruct. The norm of the gradient shows that they computed the same.
- growth: the update as a trajectory of fixed length is cut into more steps.
- end to end: an SRL batch of real steps, seconds by phase.

Every case runs in a process of its own. An update is backward, clipping and AdamW; its peak memory is what it adds to the
loaded model: activations, gradients, optimizer state. TRL lives in an environment of its own: it may need other versions.

    python3 -m venv trl-venv && trl-venv/bin/pip install torch==2.13.0 "trl==1.16.*"
    python benchmarks/training.py --peer-python trl-venv/bin/python
    python benchmarks/training.py --quick --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cases import MODELS, Shape, batch, examples_of
from process import forget_peak, machine, memory
from tables import print_table

LR = 1e-6
DATA = Path(os.environ.get("SWE_SRL_DATA", Path(__file__).parents[2] / "shared" / "data")) / "trajectories"
UPDATES = {"tiny": Shape(27, 8, 4096, 100), "smollm2": Shape(16, 8, 1024, 48)}
QUICK_UPDATES = {"tiny": Shape(8, 4, 1024, 50), "smollm2": Shape(4, 4, 192, 24)}
GROWTH, QUICK_GROWTH = [Shape(n, 8, 4096, 100) for n in (4, 8, 16, 32)], [Shape(n, 4, 512, 50) for n in (4, 8, 16, 32)]
WAYS = ("TRL GRPOTrainer", "separate", "tree")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="Python of an environment with TRL; without it TRL is left out.")
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of trajectories for the real batch.")
    parser.add_argument("--tokens", type=int, default=4096, help="tokens_per_microbatch of the tree and of separate sequences.")
    parser.add_argument("--repeats", type=int, default=1, help="Updates a case; the fastest is reported.")
    parser.add_argument("--only", choices=("updates", "growth", "end-to-end"), help="One section alone.")
    parser.add_argument("--model", choices=tuple(UPDATES), help="The updates of one model alone.")
    parser.add_argument("--quick", action="store_true", help="Smaller cases: under five minutes.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", nargs=3, metavar=("WAY", "CASE", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        way, case_file, result_file = options.work
        case = json.loads(Path(case_file).read_text())
        result = real_batch(way, case) if "data" in case else update(way, case)
        Path(result_file).write_text(json.dumps(result))
        return
    report = {"machine": machine(), **dict(_sections(options))}
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for name, rows in report.items():
        print_table(name, [rows] if isinstance(rows, dict) else rows)


def _sections(options: argparse.Namespace) -> Iterator[tuple[str, list[Row]]]:
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        sections = {"updates": _updates, "growth": _growth, "end-to-end": _end_to_end}
        for name, section in sections.items():
            if options.only in (None, name):
                yield name, list(section(options, folder))


def _updates(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    for model, shape in (QUICK_UPDATES if options.quick else UPDATES).items():
        if options.model not in (None, model):
            continue
        rows = [_case(way, model, shape, options, folder) for way in WAYS if way != WAYS[0] or options.peer_python]
        norms = [row["grad norm"] for row in rows]
        if not all(math.isclose(norm, norms[0], rel_tol=1e-3) for norm in norms):
            raise SystemExit(f"the ways disagree on {model}: gradient norms {norms}")
        for row in rows:
            yield row | {"times the tree": round(row["seconds"] / rows[-1]["seconds"], 2)}


def _growth(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    for shape in QUICK_GROWTH if options.quick else GROWTH:
        yield from (_case(way, "tiny", shape, options, folder) for way in WAYS[1:])


def _end_to_end(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    size = {"steps": 8, "samples": 4, "max_tokens": 64, "max_observation_chars": 500}
    if options.quick:
        size = {"steps": 3, "samples": 2, "max_tokens": 16, "max_observation_chars": 200}
    case = {"model": "smollm2-135m", "data": str(options.data), "tokens": options.tokens, "lr": LR, **size}
    for way in WAYS[2:] if options.quick else WAYS[1:]:
        yield {"engine": way, **_in_a_process(sys.executable, [__file__, "--work", way], case, folder)}


def _case(way: str, model: str, shape: Shape, options: argparse.Namespace, folder: Path) -> Row:
    at = folder / model
    if not at.exists():
        MODELS[model](at)
    vocabulary = json.loads((at / "config.json").read_text())["vocab_size"]
    settings = {"model": str(at), "tokens": options.tokens, "repeats": options.repeats, "lr": LR}
    case = settings | batch(shape, vocabulary)
    if way == WAYS[0]:
        result = _in_a_process(options.peer_python, [str(Path(__file__).with_name("peer_trl.py"))], case, folder)
    else:
        result = _in_a_process(sys.executable, [__file__, "--work", way], case, folder)
    return {
        "model": model,
        "N": shape.steps,
        "G": shape.samples,
        "trunk": shape.trunk,
        "branch": shape.branch,
        "way": way,
        "tokens computed": result["forward_tokens"],
        "seconds": round(min(result["seconds"]), 3),
        "peak MB": round(result["peak_mb"]),
        "grad norm": float(f"{result['grad_norm']:.5g}"),
    }


def _in_a_process(python: str, command: list[str], case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    case_file, result_file = folder / "case.json", folder / "result.json"
    case_file.write_text(json.dumps(case))
    sys.stderr.write(f"{command[-1]}: {case['model']}\n")
    # What is measured prints to where it disturbs no JSON.
    subprocess.run([python, *command, str(case_file), str(result_file)], check=True, stdout=sys.stderr)
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


def update(way: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """Updates of a made-up batch, in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32).train()
    examples = examples_of(case)
    train = Trainer(way, model, case["tokens"], case["lr"])
    before, norms, seconds = memory("VmRSS"), [], []
    forget_peak()
    for _ in range(case["repeats"]):
        begun = time.perf_counter()
        norms.append(train.update(examples))
        seconds.append(time.perf_counter() - begun)
    return {
        "seconds": seconds,
        "peak_mb": (memory("VmHWM") - before) / 1e6,
        "forward_tokens": train.forward_tokens,
        "grad_norm": norms[0],
    }


class Trainer:
    """An engine and an optimizer, as a run has them."""

    def __init__(self, way: str, model: Any, tokens: int, lr: float, temperature: float = 1.0) -> None:
        import torch

        from swe_srl.training.logprobs import SequenceEngine
        from swe_srl.training.tree.engine import TreeEngine

        self.model = model
        self.engine = {"tree": TreeEngine, "separate": SequenceEngine}[way](tokens, temperature)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
        self.forward_tokens = 0

    def update(self, examples: list[Any]) -> float:
        """One update; returns the norm of the gradient."""
        import torch

        from swe_srl.training.losses import grpo_loss

        def loss(logprobs: Any, rows: Any) -> Any:
            old = logprobs.detach()
            return grpo_loss(logprobs, old, rows.mask_B_T, rows.advantages_B, clip_low=0.2, clip_high=0.2)

        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.forward_tokens = self.engine.backward(self.model, examples, loss).forward_tokens
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        self.optimizer.step()
        return norm


def real_batch(way: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """One SRL batch over the steps of a real trajectory: read, tokenise, sample, score, update.

    Every group is trained, whether its rewards differ or not: a base model earns the same reward everywhere, and the work is
    that of any advantages.
    """
    from swe_srl.policy.base import SamplingOptions
    from swe_srl.policy.model import load_policy
    from swe_srl.policy.prompts import PromptOptions, encode_step
    from swe_srl.policy.samplers.transformers import TransformersSampler
    from swe_srl.rewards.reward import score_answer
    from swe_srl.training.advantages import group_advantages
    from swe_srl.training.data import tools_for
    from swe_srl.training.logprobs import Example
    from swe_srl.trajectories.importing import Found, import_trajectories
    from swe_srl.trajectories.sources import iter_sources

    model, tokenizer = load_policy(case["model"])
    laps = Laps()
    found = import_trajectories(iter_sources([Path(case["data"]) / "mini_swe_agent_v1"]))
    read = (list(result.trajectory.steps()) for result in found if isinstance(result, Found))
    steps = next(steps for steps in read if len(steps) >= case["steps"])[: case["steps"]]
    laps.lap("read")
    context = PromptOptions(None, max_observation_chars=case["max_observation_chars"])
    prompts = [encode_step(step, tools_for(step), context, tokenizer) for step in steps]
    laps.lap("tokenise")
    options = SamplingOptions(n=case["samples"], temperature=1.0, max_tokens=case["max_tokens"])
    groups = TransformersSampler(model, tokenizer).sample(prompts, options)
    laps.lap("sample")
    examples = []
    for step, prompt, samples in zip(steps, prompts, groups, strict=True):
        rewards = [score_answer(step, sample.text, sample.finish, tools_for(step)).reward for sample in samples]
        for sample, advantage in zip(samples, group_advantages(rewards), strict=True):
            examples.append(Example(prompt, sample.token_ids, advantage))
    laps.lap("reward")
    train = Trainer(way, model, case["tokens"], case["lr"])
    train.update(examples)
    laps.lap("update")
    return {
        "steps": len(steps),
        "samples": len(examples),
        "prompt tokens": [min(map(len, prompts)), max(map(len, prompts))],
        "answer tokens": sum(len(example.answer_ids) for example in examples),
        "tokens separate": sum(map(len, examples)),
        "tokens computed": train.forward_tokens,
        **laps.seconds,
    }


class Laps:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begun = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[f"{phase} s"] = round(now - self.begun, 2)
        self.begun = now


if __name__ == "__main__":
    main()
