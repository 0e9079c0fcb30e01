"""What an agent did and what it saw, in any agent-computer interface.

Invariant: nothing here knows a file format, a container or a model. An `Action` that carries an `error` has no calls and is
never executed, never a training target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call: a tool's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Action:
    """The tool call(s) of one step, or the reason why there is none that can be executed."""

    calls: tuple[ToolCall, ...] = ()
    error: str | None = None
    """Why the agent's answer is not an executable action (for example "found 2 bash blocks"); None when it is one."""

    @property
    def call(self) -> ToolCall:
        """The only call of a single-call action. Raises ValueError for none or several."""
        if len(self.calls) != 1:
            raise ValueError(f"expected exactly one tool call, found {len(self.calls)}")
        return self.calls[0]


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment answered, as the agent saw it."""

    text: str
    """The observation exactly as it stood in the agent's context."""
    output: str | None = None
    """The command's own output inside `text`, without the scaffold's template; None when it cannot be told apart."""
    returncode: int | None = None
    """The command's exit status, where the scaffold shows or keeps it."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the source holds about the observation and has no other place."""

    @property
    def compared(self) -> str:
        """The text that replay compares: the output where it is known, else the whole observation."""
        return self.text if self.output is None else self.output


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a sandbox returned for one command."""

    output: str
    """stdout and stderr in the order written, decoded as UTF-8 with replacement, capped."""
    returncode: int | None
    """Exit status; None when the command was killed at its time-out."""
    seconds: float = 0.0
    dropped_bytes: int = 0
    """Bytes beyond the output cap, drained and thrown away."""

    @property
    def timed_out(self) -> bool:
        """True when the command was killed at its time-out."""
        return self.returncode is None


@dataclass(frozen=True, slots=True)
class ToolFile:
    """A program that a scaffold needs inside the container: copied into the image when it is built."""

    path: str
    """Absolute path in the container."""
    content: bytes
    """The file's bytes (stdlib-only Python that runs on 3.6 and up, or a shell script)."""


class Scaffold(Protocol):
    """One agent-computer interface: its tools, its shell, how an action becomes a command and its output an observation."""

    name: str
    """The name trajectories carry, for example `mini-swe-agent` or `swe-agent`."""
    tools: Sequence[Mapping[str, Any]]
    """OpenAI-style definitions of the tools."""
    persistent_shell: bool
    """True: working directory and exported variables survive from command to command. False: each command starts afresh."""
    environment: Mapping[str, str]
    """Variables every command of this scaffold sees."""
    timeout_seconds: float
    """Wall-clock limit of one command, unless the trajectory says otherwise."""
    tool_files: Sequence[ToolFile]
    """Programs its tools need inside the container."""

    def command(self, call: ToolCall) -> str:
        """The bash script that carries out one call. Raises ValueError for a tool or argument this scaffold does not have."""
        ...

    def observe(self, call: ToolCall, result: CommandResult) -> Observation:
        """What the agent sees for a command's result."""
        ...

    def parse_observation(self, text: str) -> Observation:
        """Read back an observation that was recorded with this scaffold."""
        ...

    def is_submit(self, call: ToolCall) -> bool:
        """True when the call ends the run."""
        ...
