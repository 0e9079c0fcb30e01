"""An engine in a process of its own, answering over a socket.

    python -m swe_srl.policy.samplers.serving KIND DESCRIPTOR

Invariant: one request, one answer, in order: `(method, keyword arguments)` and `(True, result)` or `(False, message)`. Only
plain Python values cross. The process ends with the connection.

It is a process of its own because vLLM changes the one it is in: the environment, signal handlers, OpenMP's threads, torch's
distributed state. None of these may reach the trainer, and a Ctrl-C meant for the trainer must not stop the engine.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol

from swe_srl.policy.base import Sample, SamplingOptions

EngineKind = Literal["vllm", "transformers"]
Files = Mapping[str, Any]
"""What files hold, by name: bytes, or an array of them."""
Weights = Path | Callable[[], Files]
"""A model's folder, or what fetches its files where engines share no disk with the trainer."""
Part = tuple[Sequence[Sequence[int]], Sequence[int]]
"""Prompts that belong together, and their places in the call of `Sampler.sample` that they are of."""


@dataclass(frozen=True, slots=True)
class Serves:
    """What an engine says of the weights it has taken."""

    read: int
    """The checksum of the files' tensors as the engine read them (`weights.checksum`)."""
    held: tuple[int, ...]
    """Of the parameters that it computes with, by device: equal engines with equal weights hold the same."""


class Engine(Protocol):
    """What can be asked of an engine, wherever it runs."""

    def take(self, weights: Weights) -> Serves:
        """Serve these weights from here on, and forget what was computed with others."""
        ...

    def serves(self) -> Serves:
        """What `take` said last, or what the engine began with."""
        ...

    def context(self) -> int | None:
        """Longest prompt and answer together, in tokens; None: not known."""
        ...

    def sample(self, parts: Sequence[Part], options: SamplingOptions) -> list[list[list[Sample]]]:
        """By part, by prompt, `options.n` samples, as `Sampler.sample` would give them at those places of a call."""
        ...

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens asked for and, of these, found in a cache that outlives a call, since the engine was started."""
        ...


def open_engine(kind: EngineKind, **arguments: Any) -> Engine:
    """An engine in this process.

    Args:
        arguments: `weights`, `home` (a folder of the engine's own, which others remove), and the options of the kind.
    """
    if kind == "vllm":
        from swe_srl.policy.samplers.vllm_engine import VllmEngine

        return VllmEngine(**arguments)
    from swe_srl.policy.samplers.transformers_engine import TransformersEngine

    return TransformersEngine(**arguments)


@contextmanager
def as_folder(weights: Weights, home: Path) -> Iterator[Path]:
    """The folder of some weights; where they came as files it is in `home`, and gone afterwards."""
    if isinstance(weights, Path):
        yield weights
        return
    folder = home / "taken"
    folder.mkdir()
    try:
        for name, content in weights().items():
            (folder / name).write_bytes(content)
        yield folder
    finally:
        shutil.rmtree(folder)


def serve(connection: Connection, opened: Callable[..., Engine]) -> None:
    """Open an engine with the arguments that come first, then answer until the other end is closed."""
    engine: Engine | None = None
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            if engine is None:
                engine, result = opened(**arguments), None
            else:
                result = getattr(engine, method)(**arguments)
            connection.send((True, result))
        except Exception as error:
            traceback.print_exc()
            connection.send((False, f"{type(error).__name__}: {error}"))


def main(kind: EngineKind, descriptor: int) -> None:
    """Serve an engine of a kind on an inherited socket."""
    serve(Connection(descriptor), lambda **arguments: open_engine(kind, **arguments))
    # Without atexit's farewells: there is nobody left to wait for them.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    # As the module that others import: what is pickled must have one name.
    from swe_srl.policy.samplers import serving

    serving.main("vllm" if sys.argv[1] == "vllm" else "transformers", int(sys.argv[2]))
