"""Reads mini-swe-agent 1 runs: one bash block an answer, the observation in the user message that follows.

Invariant: an action has calls only when mini-swe-agent executed it. A block whose answer was met by a format error, or by
another answer, was never executed; such turns stay in the context with an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swe_srl.scaffolds.base import Action, Observation
from swe_srl.scaffolds.mini_swe_agent import MiniSweAgent
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, content_of, expect, is_plain, mapping_of, without
from swe_srl.trajectories.readers.mini_swe_agent_run import messages_of, run_of

_SCAFFOLD = MiniSweAgent()


class MiniSweAgent1Reader:
    """`.traj.json` files of mini-swe-agent 1."""

    name: str = "mini-swe-agent-1"

    def detect(self, head: object) -> bool:
        """True for the format's own mark, or, before there was one, for messages beside an `info` with a version."""
        if not isinstance(head, dict):
            return False
        if "trajectory_format" in head:
            return bool(head["trajectory_format"] == self.name)
        info, messages = head.get("info"), head.get("messages")
        if not isinstance(messages, list) or not isinstance(info, dict) or "mini_version" not in info:
            return False
        return not any(message.get("tool_calls") for message in messages if isinstance(message, dict))

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        submitted = mapping_of(document, "info").get("exit_status") == "Submitted"
        turns = _turns(messages_of(document), submitted=submitted)
        return run_of(document, origin, turns, format=self.name, scaffold=_SCAFFOLD.name, known=("trajectory_format",))


def _turns(messages: list[Any], *, submitted: bool) -> list[Turn]:
    turns: list[Turn] = []
    for i, item in enumerate(messages):
        where = f"messages[{i}]"
        message = expect(item, dict, where)
        role, text = message.get("role"), content_of(message.get("content"), f"{where}.content")
        extra = _extra(message, text)
        open_turn = turns[-1] if turns and turns[-1].role == "agent" and turns[-1].observation is None else None
        if role == "assistant":
            if open_turn:
                turns[-1] = _never_executed(open_turn, "followed by another answer")
            turns.append(Turn("agent", text, _SCAFFOLD.thought(text), _SCAFFOLD.parse_action(text), extra=extra))
        elif role == "user" and open_turn:
            turns[-1] = _answered(open_turn, text, extra, submitted=submitted and i == len(messages) - 1)
        elif role == "user" or role == "system":
            turns.append(Turn("user" if role == "user" else "system", text, extra=extra))
        else:
            raise DocumentError(f"{where}.role: expected system, user or assistant, found {role!r}")
    return [
        replace(turn, thought=turn.text.strip()) if turn.action is not None and turn.action.error else turn for turn in turns
    ]


def _answered(turn: Turn, text: str, extra: Mapping[str, Any], *, submitted: bool) -> Turn:
    if submitted:
        # The last message of a finished run is the bare submission, without the template of an observation.
        observation = Observation(text, text, extra={"submitted": True})
    else:
        observation = _SCAFFOLD.parse_observation(text)
        if observation.extra.get("format_error"):
            turn = _never_executed(turn, "answered by a format error")
    return replace(turn, observation=replace(observation, extra={**observation.extra, **extra}))


def _never_executed(turn: Turn, why: str) -> Turn:
    return turn if turn.action is None or turn.action.error else replace(turn, action=Action(error=f"never executed: {why}"))


def _extra(message: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Everything about a message but its role and text, which the provider's response repeats word for word."""
    extra = without(message, ("role", "content") if is_plain(message.get("content")) else ("role",))
    try:
        choice = extra["extra"]["response"]["choices"][0]
        repeated = choice["message"]["content"] == text
    except (KeyError, IndexError, TypeError):
        return extra
    if not repeated or len(extra["extra"]["response"]["choices"]) > 1:
        return extra
    response = extra["extra"]["response"] | {"choices": [choice | {"message": without(choice["message"], ("content",))}]}
    return extra | {"extra": extra["extra"] | {"response": response}}
