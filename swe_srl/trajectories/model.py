"""One expert run in memory: a tuple of turns; steps are views (trajectory, k) into it and copy nothing.

Invariant: turns are in the order they happened. `steps()` yields exactly the agent turns whose action can be executed and may
be a target, in order; k counts those and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from swe_srl.scaffolds.base import Action, Observation


@dataclass(frozen=True, slots=True)
class Sampled:
    """What generating an agent's turn took and, where the sampler tells them, the tokens themselves."""

    prompt_tokens: int
    completion_tokens: int
    prompt_ids: tuple[int, ...] = ()
    """Token ids of the prompt as it was served; empty where they are not known."""
    token_ids: tuple[int, ...] = ()
    """Token ids as they were sampled, the end-of-turn token included; empty where they are not known."""
    logprobs: tuple[float, ...] = ()
    """Log-probability of each of `token_ids` at the sampling temperature."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of the system or user, or one complete turn of the agent."""

    role: Literal["system", "user", "agent"]
    text: str
    """system and user: the message. agent: the answer exactly as the model wrote it ("" where the source keeps only calls)."""
    thought: str = ""
    """agent: prose and reasoning before the action, without the action itself."""
    action: Action | None = None
    """agent: what it did; an `Action` with an `error` for a malformed answer; None for a message without any action."""
    observation: Observation | None = None
    """agent: what the environment answered; None when the run ended before an answer."""
    context_only: bool = False
    """True for demonstrations and copied context: part of what the model sees, never a target."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the source holds about this turn and has no other place."""
    sampled: Sampled | None = None
    """agent: how the turn was generated, where this project's policy did it."""

    @property
    def is_step(self) -> bool:
        """True for an agent's turn that may be a target."""
        return bool(self.role == "agent" and not self.context_only and self.action and self.action.calls)

    @property
    def is_malformed(self) -> bool:
        """True for an agent's turn whose action could not be read or was never executed: context, never a target."""
        return bool(not self.context_only and self.action and self.action.error)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One expert run on one task."""

    id: str
    task_id: str
    scaffold: str
    """Name of the scaffold it was recorded with; see swe_srl.scaffolds."""
    format: str
    """The format it was read from, for example `mini-swe-agent-1`."""
    turns: tuple[Turn, ...]
    model: str | None = None
    resolved: bool | None = None
    """Whether the run solved its task, where the source says so."""
    exit_status: str | None = None
    submission: str | None = None
    """The final patch, where the source holds it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables the recorded commands saw, where the source says so."""
    timeout_seconds: float | None = None
    """Wall-clock limit of a recorded command, where the source says so."""
    workdir: str | None = None
    """Directory of the repository where the run was recorded, where the source says so."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the source holds about the run and has no other place."""

    def steps(self) -> Iterator[Step]:
        """Every expert action, in order, as a view."""
        return (Step(self, k, i) for k, i in enumerate(i for i, turn in enumerate(self.turns) if turn.is_step))

    @property
    def problem(self) -> str:
        """The first user message that is no demonstration: the issue as the agent was given it ("" where there is none)."""
        return next((turn.text for turn in self.turns if turn.role == "user" and not turn.context_only), "")


@dataclass(frozen=True, slots=True)
class Step:
    """Step k of a trajectory: given every turn before, what would the expert do now? A view."""

    trajectory: Trajectory
    k: int
    """Index among the trajectory's expert actions, from 0."""
    turn_index: int
    """Index of the expert's turn in `trajectory.turns`."""

    @property
    def turn(self) -> Turn:
        """The expert's turn."""
        return self.trajectory.turns[self.turn_index]

    @property
    def action(self) -> Action:
        """What the expert did."""
        action = self.turn.action
        assert action is not None, "a step always has an action"
        return action

    @property
    def context(self) -> tuple[Turn, ...]:
        """Every turn before the expert's."""
        return self.trajectory.turns[: self.turn_index]

    @property
    def id(self) -> str:
        """The trajectory's id and k."""
        return f"{self.trajectory.id}@{self.k}"
