"""One update of a case by TRL's GRPOTrainer, as its users run it. Run by `training.py` in an environment that has TRL alone.

The completions and their rewards are the case's: `rollout_func` hands them over. An update is timed from there to the end of
the optimizer step. TRL pads every prompt of a generation batch to the longest one.

    python benchmarks/peer_trl.py CASE.json RESULT.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import torch
import transformers
import trl
from process import forget_peak, memory

_MB = 1e6


class Clock(transformers.TrainerCallback):
    """Times each update and takes its peak of memory."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.before, self.begun = 0, 0.0

    def begin(self) -> None:
        if not self.seconds:
            forget_peak()
            self.before = memory("VmRSS")
        self.begun = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self.begun)


def main(case_file: str, result_file: str) -> None:
    case = json.loads(Path(case_file).read_text())
    prompts, answers, advantages = case["prompts"], case["answers"], case["advantages"]
    steps, samples = len(prompts), len(answers[0])
    torch.manual_seed(0)
    clock = Clock()

    def rollout(texts: list[str], trainer: Any) -> dict[str, Any]:
        seen = dict.fromkeys(texts, -1)
        places = []
        for text in texts:
            seen[text] += 1
            places.append((int(text), seen[text]))
        result = {
            "prompt_ids": [prompts[step] for step, _ in places],
            "completion_ids": [answers[step][sample] for step, sample in places],
            "logprobs": None,
            "advantage": [advantages[step][sample] for step, sample in places],
        }
        clock.begin()
        return result

    def reward(advantage: list[float], **_: Any) -> list[float]:
        return advantage

    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=transformers.AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32),
            processing_class=transformers.AutoTokenizer.from_pretrained(case["model"]),
            reward_funcs=reward,
            train_dataset=datasets.Dataset.from_dict({"prompt": [str(step) for step in range(steps)]}),
            rollout_func=rollout,
            callbacks=[clock],
            args=trl.GRPOConfig(
                output_dir=folder,
                per_device_train_batch_size=1,
                gradient_accumulation_steps=steps * samples,
                num_generations=samples,
                max_completion_length=max(len(answer) for group in answers for answer in group),
                max_steps=case["repeats"],
                # Rewards of a group sum to zero and are not scaled: they are the advantages.
                scale_rewards="none",
                loss_type="grpo",
                beta=0.0,
                epsilon=0.2,
                learning_rate=case["lr"],
                lr_scheduler_type="constant",
                max_grad_norm=1.0,
                weight_decay=0.0,
                optim="adamw_torch",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                logging_steps=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                seed=0,
            ),
        )
        trainer.train()
    logged = trainer.state.log_history[0]
    longest = max(map(len, prompts)) + max(len(answer) for group in answers for answer in group)
    result = {
        "seconds": clock.seconds,
        "peak_mb": (memory("VmHWM") - clock.before) / _MB,
        "process_mb": memory("VmHWM") / _MB,
        "forward_tokens": steps * samples * longest,
        "grad_norm": logged["grad_norm"],
        "versions": {package.__name__: package.__version__ for package in (trl, transformers, torch)},
    }
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
