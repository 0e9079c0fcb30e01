"""Engines on the nodes of a Ray cluster: `hosting.Hosts` by placed objects.

Invariant: Ray alone decides on which node an engine fits. Weights go to the cluster once a version, whatever the number of
engines; nodes need no disk in common with the trainer. Every answer is waited for, but not for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from swe_srl.cluster.placing import Placed, PlaceLost
from swe_srl.cluster.ray import RayCluster
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplerLost
from swe_srl.policy.samplers.hosting import PATIENCE_S
from swe_srl.policy.samplers.serving import EngineKind, Files, open_engine
from swe_srl.policy.samplers.weights import handover


@dataclass(frozen=True, slots=True)
class Stored:
    """The files of a model in the cluster's object store: called, it gives them by name."""

    files: Any

    def __call__(self) -> Files:
        """The files, on the node where this is called."""
        found: Files = ray.get(self.files)
        return found


@dataclass(frozen=True, slots=True)
class NodeHosts:
    """Implements `swe_srl.policy.samplers.hosting.Hosts`."""

    cluster: RayCluster
    kind: EngineKind
    cpus: float
    gpus: float
    """Of each engine."""

    def ship(self, folder: Path) -> Stored:
        """See `Hosts`."""
        return Stored(ray.put({file.name: np.fromfile(file, np.uint8) for file in folder.iterdir() if file.is_file()}))

    def start(self, number: int, **arguments: Any) -> NodeHost:
        """See `Hosts`."""
        make = partial(NodeEngine, self.kind, arguments)
        try:
            return NodeHost(self.cluster.place(make, cpus=self.cpus, gpus=self.gpus, seconds=PATIENCE_S))
        except (PlaceLost, TimeoutError, UserError) as error:
            raise SamplerLost(f"the engine did not start: {error}") from error
        except Exception as error:
            raise SamplerLost(f"the engine did not start: {type(error).__name__}: {error}") from error


class NodeEngine:
    """What is placed: an engine, and a folder of its own on its node."""

    def __init__(self, kind: EngineKind, arguments: Mapping[str, Any]) -> None:
        """Open the engine there. Raises what `open_engine` raises."""
        self._stack = ExitStack()
        home = Path(self._stack.enter_context(handover(None)))
        self._engine = open_engine(kind, home=home, **arguments)

    def ask(self, method: str, arguments: Mapping[str, Any]) -> Any:
        """What a method of the engine returns."""
        return getattr(self._engine, method)(**arguments)

    def close(self) -> None:
        """Remove the folder."""
        self._stack.close()


@dataclass(frozen=True, slots=True)
class NodeHost:
    """Implements `swe_srl.policy.samplers.hosting.Host`."""

    placed: Placed

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """See `Host`."""
        try:
            return self.placed.call("ask", method, arguments, timeout=PATIENCE_S)
        except (PlaceLost, TimeoutError) as error:
            raise SamplerLost(f"it has ended: {error}") from error
        except Exception as error:
            raise SamplerLost(f"it failed: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """See `Host`."""
        self.placed.close()
