"""vLLM's engine, in the process that opens it; see `serving`.

Invariant: as `swe_srl.policy.samplers.vllm` says of what is served. vLLM changes the process it is in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers.rules import finished_sample
from swe_srl.policy.samplers.serving import Part, Serves, Weights, as_folder
from swe_srl.policy.samplers.vllm_requests import request, stopped


class VllmEngine:
    """Implements `swe_srl.policy.samplers.serving.Engine`."""

    def __init__(
        self,
        weights: Weights,
        home: Path,
        options: Mapping[str, Any],
        environment: Mapping[str, str],
        ends: Sequence[int],
        sleep: bool,
    ) -> None:
        """Start vLLM.

        Args:
            options: of `vllm.LLM`, but for the model.
            environment: what vLLM reads when it is imported.
            ends: ids that end an answer.
            sleep: give the GPU's memory back between calls.
        """
        os.environ.update(environment)
        from transformers import AutoTokenizer
        from vllm import LLM

        self._home, self._ends, self._sleeps, self._asleep = home, tuple(ends), sleep, False
        served = home / "model"
        with as_folder(weights, home) as folder:
            _lay_out(folder, served)
            self._tokenizer = AutoTokenizer.from_pretrained(served)
            self._llm = LLM(model=str(served), **options)
            self._serves = self._worked("serves", str(served))
        # vLLM may read the configuration again; the weights it has.
        for link in served.glob("*.safetensors"):
            link.unlink()

    def take(self, weights: Weights) -> Serves:
        """See `Engine`."""
        with self._awake(), as_folder(weights, self._home) as folder:
            self._serves = self._worked("take_weights", str(folder))
            if not self._llm.reset_prefix_cache():
                raise RuntimeError("vLLM could not empty its prefix cache")
        return self._serves

    def serves(self) -> Serves:
        """See `Engine`."""
        return self._serves

    def context(self) -> int | None:
        """See `Engine`."""
        return int(self._llm.model_config.max_model_len)

    def sample(self, parts: Sequence[Part], options: SamplingOptions) -> list[list[list[Sample]]]:
        """See `Engine`. The parts go to vLLM together, in their order."""
        from vllm import SamplingParams

        asked = [(prompt, place) for prompts, places in parts for prompt, place in zip(prompts, places, strict=True)]
        with self._awake():
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt, _ in asked],
                [SamplingParams(**request(options, place, self._ends)) for _, place in asked],
                use_tqdm=False,
            )
        groups = iter([[self._sample(answer, options) for answer in output.outputs] for output in outputs])
        return [[next(groups) for _ in places] for _, places in parts]

    def prefix_cache(self) -> tuple[int, int]:
        """See `Engine`."""
        counters = {metric.name: metric.value for metric in self._llm.get_metrics() if hasattr(metric, "value")}
        return int(counters["vllm:prefix_cache_queries"]), int(counters["vllm:prefix_cache_hits"])

    def _sample(self, answer: Any, options: SamplingOptions) -> Sample:
        ids = list(answer.token_ids)
        logprobs = [position[token].logprob for position, token in zip(answer.logprobs, ids, strict=True)]
        ended = stopped(str(answer.finish_reason))
        return finished_sample(self._tokenizer, ids, logprobs, stopped=ended, stop=options.stop)

    def _worked(self, method: str, folder: str) -> Serves:
        """What the workers' `method` says, of each device: all of them read the same files."""
        found = self._llm.collective_rpc(method, kwargs={"folder": folder})
        [read] = {read for read, _ in found}
        return Serves(read, tuple(held for _, held in found))

    @contextmanager
    def _awake(self) -> Iterator[None]:
        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        yield
        if self._sleeps:
            # Weights go to the host's memory, keys and values are forgotten.
            self._llm.sleep(level=1)
            self._asleep = True


def _lay_out(folder: Path, served: Path) -> None:
    """`folder` under another path, for as long as there is no other way to say which files are done with."""
    served.mkdir()
    for file in folder.iterdir():
        if file.suffix == ".safetensors":
            (served / file.name).symlink_to(file.resolve())
        else:
            (served / file.name).write_bytes(file.read_bytes())
