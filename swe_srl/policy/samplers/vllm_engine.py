"""vLLM's engine in a process of its own, answering the requests of `swe_srl.policy.samplers.vllm` over a socket.

    python -m swe_srl.policy.samplers.vllm_engine DESCRIPTOR

Invariant: one request, one answer, in order: `(method, keyword arguments)` and `(True, result)` or `(False, message)`. Only
plain Python values cross. The process ends with the connection.

It is a process of its own because vLLM changes the one it is in: the environment, signal handlers, OpenMP's threads, torch's
distributed state. None of these may reach the trainer, and a Ctrl-C meant for the trainer must not stop the engine.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any


class Engine:
    """The methods that can be asked for."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**options)

    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return int(self._llm.model_config.max_model_len)

    def generate(
        self, prompts: Sequence[Sequence[int]], requests: Sequence[Mapping[str, Any]]
    ) -> list[list[tuple[list[int], list[float], str]]]:
        """For each prompt the ids, log-probabilities and finish reason of its samples. `requests`: SamplingParams' fields."""
        from vllm import SamplingParams

        outputs = self._llm.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompts],
            [SamplingParams(**request) for request in requests],
            use_tqdm=False,
        )
        return [
            [
                (
                    list(answer.token_ids),
                    [position[token].logprob for position, token in zip(answer.logprobs, answer.token_ids, strict=True)],
                    str(answer.finish_reason),
                )
                for answer in output.outputs
            ]
            for output in outputs
        ]

    def reload(self, folder: str) -> None:
        """Load the weights of a model folder in place and forget every key and value computed with the old ones."""
        self._llm.collective_rpc("take_weights", kwargs={"folder": folder})
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM could not empty its prefix cache")

    def sleep(self) -> None:
        """Give the GPU's memory back: weights go to the host's memory, keys and values are forgotten."""
        self._llm.sleep(level=1)

    def wake(self) -> None:
        """Take the memory again."""
        self._llm.wake_up()

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens asked for and, of these, found in the prefix cache since the engine was started."""
        counters = {metric.name: metric.value for metric in self._llm.get_metrics() if hasattr(metric, "value")}
        return int(counters["vllm:prefix_cache_queries"]), int(counters["vllm:prefix_cache_hits"])


def serve(connection: Connection) -> None:
    """Start an engine with the options that come first, then answer until the other end is closed."""
    engine: Engine | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            if engine is None:
                engine, result = Engine(**arguments), None
            else:
                result = getattr(engine, method)(**arguments)
            connection.send((True, result))
        except Exception as error:
            traceback.print_exc()
            connection.send((False, f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
    # Without atexit's farewells: there is nobody left to wait for them.
    os._exit(0)
