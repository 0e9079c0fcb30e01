"""Policies for tests: what they say is written down beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swe_srl.rollouts.agent import Reply
from swe_srl.trajectories.model import Sampled, Step


def xml(command: str) -> str:
    return f"<function=bash>\n<parameter=command>{command}</parameter>\n</function>"


def says(command: str) -> str:
    return f"<think>\nWhy not.\n</think>\n{xml(command)}"


class Says:
    """Gives these answers in order, the last one for ever; a number is the tokens that it took. Keeps what it was shown."""

    name = "says"

    def __init__(self, *answers: str, tokens: int = 10, before: Callable[[int], None] = lambda _: None) -> None:
        self.answers, self.tokens, self.before = answers, tokens, before
        self.shown: list[Step] = []

    def reply(self, step: Step, tools: Sequence[Mapping[str, Any]]) -> Reply:
        self.before(len(self.shown))
        text = self.answers[min(len(self.shown), len(self.answers) - 1)]
        self.shown.append(step)
        return Reply(text, "stop", Sampled(7, self.tokens))

    def close(self) -> None:
        pass
