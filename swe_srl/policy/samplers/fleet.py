"""A sampler on engines with weights of their own: one, or several that share the prompts of each call.

Invariant: samples are those that one engine would give at the same places of a call, in the same order, whatever engine draws
them and however often one is lost (as far as engines of the kind round alike). Every `sample` serves the weights that the last
`update_weights` named: each engine says what it has read, which must be what was written, and what it computes with, which
must be what the others compute with, before it is asked for a sample. Nothing is found in a cache that other weights computed.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from swe_srl.cluster.local import threads
from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, SamplerLost, SamplingOptions
from swe_srl.policy.samplers.hosting import Host, Hosts
from swe_srl.policy.samplers.lifeline import Lifeline
from swe_srl.policy.samplers.routing import Pieces, Prompts, route
from swe_srl.policy.samplers.rules import check_lengths, end_ids
from swe_srl.policy.samplers.serving import EngineKind, Part, Serves
from swe_srl.policy.samplers.weights import checksum, save_served, stored_tensors

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fitting:
    """What a fleet's engines are."""

    kind: EngineKind
    count: int
    restarts: int
    """How often in one call an engine that has ended is started again."""
    dtype: torch.dtype
    """Of the served weights."""
    arguments: Mapping[str, Any]
    """Of the kind, for `open_engine`."""
    pieces: Callable[[Prompts, SamplingOptions], Pieces]
    """What of a call one engine gets together."""
    keeps_prefixes: bool
    """Whether an engine has keys and values of earlier calls."""


@dataclass(slots=True)
class _Taken:
    """What was asked of the engines since the last report."""

    prompts: list[int]
    tokens: list[int]
    prompt_tokens: int = 0
    found: int = 0
    restarts: int = 0


@dataclass(slots=True)
class _Version:
    """The weights that are served; kept for engines that are started again while the trainer's model changes."""

    folder: Path
    shipped: Any
    """As engines are given them."""
    checksum: int
    held: tuple[int, ...] | None = None
    """What the first engine computes with."""


class Fleet:
    """Implements `swe_srl.policy.base.Sampler`."""

    def __init__(self, model: Any, tokenizer: Any, fitting: Fitting, hosts: Hosts, parent: Path) -> None:
        """Start engines with the model's present weights.

        parent: where weights are handed over.
        Raises UserError where an engine does not start.
        """
        self._model, self._tokenizer, self._fitting, self._starter = model, tokenizer, fitting, hosts
        self._ends = sorted(end_ids(model, tokenizer))
        self._hosts: list[Host | None] = [None] * fitting.count
        self._held: list[frozenset[int]] = [frozenset()] * fitting.count
        self._taken = _Taken([0] * fitting.count, [0] * fitting.count)
        self._closed, self._updated = False, False
        self._checkpoint: Path | None = None
        self._versions = 0
        self._folder = Path(tempfile.mkdtemp(prefix="swe-srl-weights-", dir=parent))
        # Removes the folder when this process is gone, however it went.
        self._keeper = Lifeline(["sleep", "infinity"], self._folder)
        try:
            self._version = self._new_version(None)
            self._on_each(self._start)
            self._context: int | None = self._host(0).ask("context")
        except SamplerLost as error:
            self.close()
            raise UserError(f"sampling.engine {fitting.kind!r}: {error}") from error
        except BaseException:
            self.close()
            raise

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """For each prompt `options.n` samples, in the order of the prompts; the steps of a trajectory are submitted together.

        At temperature 0 the log-probabilities are those of temperature 1. Raises UserError for a prompt that leaves less than
        `options.max_tokens` of the context, and SamplerLost where an engine fails once more often than it is started again.
        """
        check_lengths(prompts, options.max_tokens, self._context)
        if not prompts:
            return []
        self.take_weights()
        pieces = self._fitting.pieces(prompts, options)
        routing = route(prompts, pieces, options.n * options.max_tokens, self._held)
        if self._fitting.keeps_prefixes:
            self._held = list(routing.held)
        self._taken.prompt_tokens += sum(map(len, prompts))
        self._taken.found += routing.found
        groups: dict[int, list[Sample]] = {}

        def sampled(number: int) -> None:
            own = [pieces[piece] for piece in routing.shares[number]]
            if not own:
                return
            parts: list[Part] = [([list(prompts[i]) for i in piece], piece) for piece in own]
            found = self._ask(number, "sample", parts=parts, options=options)
            for piece, of_piece in zip(own, found, strict=True):
                groups.update(zip(piece, of_piece, strict=True))
            self._taken.prompts[number] += sum(map(len, own))
            self._taken.tokens[number] += routing.tokens[number]

        self._on_each(sampled)
        return [groups[i] for i in range(len(prompts))]

    def update_weights(self, checkpoint: Path | None) -> None:
        """Serve a checkpoint's weights, or with None the model's, from the next `sample` on. Costs nothing until then."""
        self._updated, self._checkpoint = True, checkpoint

    def take_weights(self) -> None:
        """See `Sampler`. Raises SamplerLost where an engine does not take them."""
        if not self._updated:
            return
        before, self._version = self._version, self._new_version(self._checkpoint)
        shutil.rmtree(before.folder)
        self._held = [frozenset()] * self._fitting.count
        for number, serves in enumerate(self._on_each(self._take)):
            self._prove(number, serves)
        if before.held and (before.checksum == self._version.checksum) != (before.held == self._version.held):
            raise SamplerLost("the engines have read new weights and compute with the old ones")
        self._updated = False

    def report(self) -> dict[str, Any]:
        """See `Sampler`. By engine: prompts, and tokens that were to be computed, samples at their longest.

        `busiest` is the most of these over their mean, `found` the share of prompt tokens that needed no computing.
        """
        taken, count = self._taken, self._fitting.count
        self._taken = _Taken([0] * count, [0] * count)
        if not taken.prompt_tokens:
            return {}
        return {
            "engines": {
                "prompts": taken.prompts,
                "tokens": taken.tokens,
                "busiest": max(taken.tokens) * count / max(1, sum(taken.tokens)),
                "found": taken.found / taken.prompt_tokens,
                "restarts": taken.restarts,
            }
        }

    def prefix_cache(self) -> tuple[int, int]:
        """Prompt tokens asked for and, of these, found in a cache, by all engines since they were started."""
        asked = [self._host(number).ask("prefix_cache") for number in range(self._fitting.count)]
        return sum(of_engine[0] for of_engine in asked), sum(of_engine[1] for of_engine in asked)

    def close(self) -> None:
        """End the engines."""
        self._end_engines()
        self._keeper.close()

    def _new_version(self, checkpoint: Path | None) -> _Version:
        folder = self._folder / str(self._versions)
        self._versions += 1
        if checkpoint is None:
            save_served(self._model, folder, self._fitting.dtype)
        else:
            shutil.copytree(checkpoint, folder)
        self._tokenizer.save_pretrained(folder)
        return _Version(folder, self._starter.ship(folder), checksum(stored_tensors(folder)))

    def _take(self, number: int) -> Serves:
        found: Serves = self._ask(number, "take", weights=self._version.shipped)
        return found

    def _prove(self, number: int, serves: Serves) -> None:
        """Raise SamplerLost unless an engine has read what was written, and computes with what the others compute with."""
        if serves.read != self._version.checksum:
            raise SamplerLost(f"{self._name(number)} has read other weights than it was given")
        if serves.held != (self._version.held or serves.held):
            raise SamplerLost(f"{self._name(number)} computes with other weights than the others")
        self._version.held = serves.held

    def _ask(self, number: int, method: str, **arguments: Any) -> Any:
        """An engine's answer. One that is lost is started again, with the weights of now, and asked again."""
        lost: SamplerLost | None = None
        for _ in range(1 + self._fitting.restarts):
            try:
                if lost is not None:
                    _log.warning("%s is started again: %s", self._name(number), lost)
                    self._taken.restarts += 1
                    self._start(number)
                return self._host(number).ask(method, **arguments)
            except SamplerLost as error:
                lost = error
                if self._closed:
                    break
        assert lost is not None
        again = f", and was started again {self._fitting.restarts} time(s)" if self._fitting.restarts else ""
        raise SamplerLost(f"{self._name(number)} is lost{again}: {lost}") from lost

    def _start(self, number: int) -> None:
        if (old := self._hosts[number]) is not None:
            old.close()
        self._hosts[number] = None
        self._held[number] = frozenset()
        weights = {"weights": self._version.shipped, "ends": self._ends}
        host = self._hosts[number] = self._starter.start(number, **weights, **self._fitting.arguments)
        self._prove(number, host.ask("serves"))

    def _host(self, number: int) -> Host:
        host = self._hosts[number]
        if host is None:
            raise SamplerLost("it is not running")
        return host

    def _on_each(self, call: Callable[[int], _T]) -> list[_T]:
        """What a call comes to for each engine, at the same time. Left by an error, the engines are ended."""
        with threads(self._fitting.count, self._end_engines) as pool:
            return list(pool.map(call, range(self._fitting.count)))

    def _end_engines(self) -> None:
        self._closed = True
        for host in self._hosts:
            if host is not None:
                host.close()

    def _name(self, number: int) -> str:
        if self._fitting.count > 1:
            return f"engine {number + 1} of {self._fitting.count}"
        return "vLLM's engine" if self._fitting.kind == "vllm" else "the engine"
