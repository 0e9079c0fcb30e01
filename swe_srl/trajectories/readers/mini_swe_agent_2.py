"""Reads mini-swe-agent 1.1 and 2 trajectories (`trajectory_format` mini-swe-agent-1.1 and later).

Invariant: an answer's actions are its OpenAI `tool_calls`; where the model wrote plain text they are the commands that
mini-swe-agent itself read from it and keeps in `extra.actions`. The closing message of role `exit` answers the last action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.scaffolds.mini_swe_agent_2 import MiniSweAgent2
from swe_srl.trajectories.chat import Dialect, Said, never_executed, read_turns
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import Origin, arguments_of, mapping_of, optional, without
from swe_srl.trajectories.readers.mini_swe_agent_run import messages_of, run_of

_OBSERVE = MiniSweAgent2().parse_observation


class MiniSweAgent2Reader:
    """`.traj.json` files of mini-swe-agent 1.1 and 2."""

    name: str = "mini-swe-agent-2"

    def detect(self, head: object) -> bool:
        """True for the format's own mark, or for tool calls beside an `info` with a version."""
        if not isinstance(head, dict):
            return False
        mark, info = head.get("trajectory_format"), head.get("info")
        if mark is not None:
            return isinstance(mark, str) and mark.startswith("mini-swe-agent-") and mark != "mini-swe-agent-1"
        return isinstance(head.get("messages"), list) and isinstance(info, dict) and "mini_version" in info

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        return run_of(document, origin, _turns(messages_of(document)), format=self.name, scaffold=self.name)


def _turns(messages: list[Any]) -> list[Turn]:
    last = messages[-1] if isinstance(messages[-1], dict) else {}
    ended = last.get("role") == "exit"
    turns = read_turns([_lean(message) for message in (messages[:-1] if ended else messages)], Dialect(_parse, _OBSERVE))
    turns = [_with_result(turn) for turn in turns]
    if ended:
        turns = _with_exit(turns, last)
    return turns


def _parse(text: str, message: Mapping[str, Any]) -> Said:
    actions = mapping_of(message, "extra").get("actions")
    commands = [action.get("command") for action in actions if isinstance(action, dict)] if isinstance(actions, list) else []
    calls = tuple(ToolCall("bash", {"command": command}) for command in commands if isinstance(command, str))
    if not calls or len(calls) != len(actions or ()):
        return Said(text, Action(error="found 0 tool calls"))
    return Said(text.split("```", 1)[0], Action(calls))


def _with_result(turn: Turn) -> Turn:
    """The turn whose observation has the output and return code that mini-swe-agent keeps beside the text."""
    seen = turn.observation
    if seen is None:
        return turn
    if seen.extra.get("format_error") and turn.is_step:
        turn = never_executed(turn, "answered by a format error")
    kept = seen.extra.get("extra")
    if not isinstance(kept, dict):
        return turn
    output, code = kept.get("raw_output"), kept.get("returncode")
    if not isinstance(output, str) or not isinstance(code, int) or isinstance(code, bool):
        return turn
    if "elided_chars" in seen.extra:  # the agent saw its two ends, and so does a replay; the whole stays in `extra`
        return turn
    rest = without(kept, ("raw_output", "returncode"))
    return replace(turn, observation=replace(seen, output=output, returncode=code, extra={**seen.extra, "extra": rest}))


def _with_exit(turns: list[Turn], message: Mapping[str, Any]) -> list[Turn]:
    text = optional(message.get("content"), str, "messages[-1].content") or ""
    extra = without(message, ("role", "content"))
    if turns and turns[-1].role == "agent" and turns[-1].observation is None:
        submitted = {"submitted": True} if mapping_of(message, "extra").get("exit_status") == "Submitted" else {}
        return [*turns[:-1], replace(turns[-1], observation=Observation(text, text, extra={**submitted, **extra}))]
    return [*turns, Turn("user", text, extra={"role": "exit", **extra})]


def _lean(message: Any) -> Any:
    """The message without what the provider's response and the list of actions repeat word for word."""
    extra = message.get("extra") if isinstance(message, dict) else None
    if not isinstance(extra, dict) or not message.get("tool_calls"):
        return message
    try:
        called = [{"command": _command(call), "tool_call_id": call["id"]} for call in message["tool_calls"]]
        if extra.get("actions") == called:
            extra = without(extra, ("actions",))
        (choice,) = extra["response"]["choices"]
        spoken = {key: choice["message"].get(key) for key in choice["message"]}
        repeated = {key for key, value in spoken.items() if key in message and message[key] == value}
        response = extra["response"] | {"choices": [choice | {"message": without(spoken, repeated)}]}
        extra = extra | {"response": response}
    except (KeyError, TypeError, ValueError, AttributeError):
        pass
    return message | {"extra": extra}


def _command(call: Mapping[str, Any]) -> object:
    """The command of a `bash` call, None where there is none."""
    return (arguments_of(call["function"]["arguments"]) or {}).get("command")
