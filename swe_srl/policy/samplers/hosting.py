"""Where engines run: in processes of this machine; on a cluster's nodes see `clustered`.

Invariant: an engine ends with the process that started it, however that ends, and leaves nothing behind. Every answer is waited
for, but not for ever.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Protocol

from swe_srl.errors import UserError
from swe_srl.policy.base import SamplerLost
from swe_srl.policy.samplers.lifeline import Lifeline
from swe_srl.policy.samplers.serving import EngineKind

PATIENCE_S = 3600.0
"""How long an engine may take for one answer."""


class Host(Protocol):
    """Where one engine runs."""

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """What a method of `serving.Engine` returns. Raises SamplerLost where the engine has ended, fails or says nothing."""
        ...

    def close(self) -> None:
        """End the engine; whoever waits for an answer gets SamplerLost. Closing twice is closing once."""
        ...


class Hosts(Protocol):
    """What starts engines."""

    def ship(self, folder: Path) -> Any:
        """The weights in a folder as engines are given them; the folder stays as it is for as long as they may be."""
        ...

    def start(self, number: int, **arguments: Any) -> Host:
        """Start the engine of this number, with arguments of `open_engine`. Raises SamplerLost where it does not start."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessHosts:
    """Processes of this machine; implements `Hosts`."""

    kind: EngineKind
    environments: Sequence[Mapping[str, str]]
    """Of each engine, added to this process's."""
    parent: Path
    """Where engines keep their folders."""

    def ship(self, folder: Path) -> Path:
        """See `Hosts`: the folder itself."""
        return folder

    def start(self, number: int, **arguments: Any) -> ProcessHost:
        """See `Hosts`."""
        return ProcessHost(self.kind, self.environments[number], self.parent, arguments)


class ProcessHost:
    """Implements `Host`."""

    def __init__(self, kind: EngineKind, environment: Mapping[str, str], parent: Path, arguments: Mapping[str, Any]) -> None:
        """Start an engine with arguments of `open_engine`. Raises SamplerLost where it does not start."""
        folder = Path(tempfile.mkdtemp(prefix=f"swe-srl-{kind}-", dir=parent))
        home = folder / "home"
        home.mkdir()
        self._connection, theirs = Pipe()
        with theirs:
            self._lifeline = Lifeline(
                [sys.executable, "-m", "swe_srl.policy.samplers.serving", kind, str(theirs.fileno())],
                folder,
                environment=environment,
                pass_fds=[theirs.fileno()],
            )
        try:
            self.ask("__init__", home=home, **arguments)
        except SamplerLost as error:
            words = self._lifeline.last_words()
            self.close()
            raise SamplerLost(f"the engine did not start: {error}\n{words}") from error
        except BaseException:
            self.close()
            raise

    def ask(self, method: str, /, **arguments: Any) -> Any:
        """See `Host`."""
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(PATIENCE_S):
                raise SamplerLost(f"it gave no answer to {method} for {PATIENCE_S:.0f} s:\n{self._lifeline.last_words()}")
            done, result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise SamplerLost(f"it has ended:\n{self._lifeline.last_words()}") from error
        if not done:
            raise SamplerLost(f"it failed: {result}")
        return result

    def close(self) -> None:
        """See `Host`."""
        # The engine first: its end is what ends a wait for its answer.
        self._lifeline.close()
        self._connection.close()


def own_devices(engines: int, each: int, visible: Sequence[str]) -> list[Sequence[str]]:
    """Devices of each engine, `each` of them: the last ones, so that the trainer's, the first, is taken last.

    Raises UserError where there are too few.
    """
    if len(visible) < engines * each:
        raise UserError(
            f"sampling.engines = {engines}, of {each} device(s) each, and this machine shows {len(visible)}: "
            "lower sampling.engines or sampling.vllm.tensor_parallel"
        )
    first = len(visible) - engines * each
    return [visible[start : start + each] for start in range(first, len(visible), each)]
