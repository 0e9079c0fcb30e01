"""Reads SWE-agent `.traj` files of versions 0 and 1: answers in tool calls, in XML, or a thought and a command.

Invariant: the turns are those of `history`, which holds what the model saw; `trajectory` adds what the environment printed, its
state and times. `Observation.text` is the history's message, `Observation.output` the raw output of the trajectory's step.
An answer is taken from the text only where the run has no tool calls; then a user's message after it is its observation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.scaffolds.swe_agent_windowed import SweAgentWindowed
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import (
    DocumentError,
    Origin,
    content_of,
    expect,
    is_plain,
    mapping_of,
    optional,
    optional_seconds,
    texts_of,
    without,
)
from swe_srl.trajectories.readers.swe_agent_interface import WINDOWED, called, first_directory, interface_of, written

# The ids of SWE-bench's tasks at the end of a file's name, where nothing else in the file says the task.
_TASK_ID = re.compile(r"[A-Za-z0-9.-]+__[A-Za-z0-9.-]+-\d+$")
_OBSERVED = "OBSERVATION:\n"
_NO_OUTPUT = "Your command ran successfully and did not produce any output."


class SweAgentReader:
    """SWE-agent runs."""

    name: str = "swe-agent"

    def detect(self, head: object) -> bool:
        """True for a `history` of messages of which one has an action, or of a run with tools configured."""
        if not isinstance(head, dict) or not isinstance(head.get("history"), list):
            return False
        items = [item for item in head["history"] if isinstance(item, dict) and item.get("role")]
        if any(item.get("tool_calls") or "action" in item for item in items):
            return True
        try:
            return bool(items) and bool(_replay_config(head)["agent"]["tools"])
        except (DocumentError, KeyError, TypeError):
            return False

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        info = mapping_of(document, "info")
        config = _replay_config(document)
        agent = mapping_of(config, "agent", "replay_config.")
        tools = mapping_of(agent, "tools", "replay_config.agent.")
        model = mapping_of(agent, "model", "replay_config.agent.")
        problem = mapping_of(config, "problem_statement", "replay_config.")
        steps = optional(document.get("trajectory"), list, "trajectory") or []
        history = expect(document.get("history"), list, "history")
        scaffold = interface_of(history, steps, tools)
        turns, unaligned = _with_steps(_turns(history, scaffold), steps)
        return Trajectory(
            id=origin.name,
            task_id=optional(problem.get("id"), str, "replay_config.problem_statement.id") or task_in(origin.name),
            scaffold=scaffold,
            format=self.name,
            turns=tuple(turns),
            model=optional(model.get("name"), str, "replay_config.agent.model.name"),
            exit_status=optional(info.get("exit_status"), str, "info.exit_status"),
            submission=optional(info.get("submission"), str, "info.submission"),
            environment=texts_of(mapping_of(tools, "env_variables", "replay_config.agent.tools.")),
            timeout_seconds=optional_seconds(tools.get("execution_timeout"), "replay_config.agent.tools.execution_timeout"),
            workdir=first_directory(steps) if scaffold.startswith(WINDOWED) else None,
            extra={
                "info": without(info, ("exit_status", "submission")),
                **without(document, ("info", "history", "trajectory")),
                **({"unaligned_steps": unaligned} if unaligned else {}),
            },
        )


def _replay_config(document: Mapping[str, Any]) -> dict[str, Any]:
    config = document.get("replay_config")
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"replay_config: not JSON: {error}") from None
    return optional(config, dict, "replay_config") or {}


def task_in(name: str) -> str:
    """The task's id at the end of a file's name, the whole name where there is none."""
    found = _TASK_ID.search(name)
    return found[0] if found else name


def _turns(history: list[Any], scaffold: str) -> list[Turn]:
    turns: list[Turn] = []
    in_text = not any(isinstance(item, dict) and item.get("tool_calls") for item in history)
    for i, value in enumerate(history):
        where = f"history[{i}]"
        item = expect(value, dict, where)
        role, text = item.get("role"), content_of(item.get("content"), f"{where}.content")
        last = turns[-1] if turns and turns[-1].role == "agent" else None
        unanswered = last is not None and last.observation is None and (in_text or not (last.action and last.action.calls))
        if role == "assistant":
            turns.append(_agent_turn(item, text, scaffold if in_text else None, where))
        elif last and (role == "tool" or (role == "user" and unanswered and not _is_demo(item))):
            turns[-1] = replace(last, observation=_observation(item, text, last, scaffold))
        elif role == "user" or role == "system":
            turns.append(Turn("user" if role == "user" else "system", text, context_only=_is_demo(item), extra=_rest(item)))
        else:
            raise DocumentError(f"{where}: a message of role {role!r} where none can stand")
    return turns


def _is_demo(item: Mapping[str, Any]) -> bool:
    return item.get("is_demo") in (True, "True")  # version 0 writes it as text


def _rest(item: Mapping[str, Any], *used: str) -> dict[str, Any]:
    content = ("content",) if is_plain(item.get("content")) else ()
    demo = ("is_demo",) if item.get("is_demo") is True else ()
    return without(item, ("role", *demo, *content, *used))


def _agent_turn(item: Mapping[str, Any], text: str, in_text: str | None, where: str) -> Turn:
    calls = optional(item.get("tool_calls"), list, f"{where}.tool_calls") or []
    blocks = optional(item.get("thinking_blocks"), list, f"{where}.thinking_blocks") or []
    thinking = [block["thinking"] for block in blocks if isinstance(block, dict) and isinstance(block.get("thinking"), str)]
    thought = optional(item.get("thought"), str, f"{where}.thought")
    action = called(calls, f"{where}.tool_calls") if in_text is None else written(item, text, in_text, where)
    return Turn(
        role="agent",
        text=text,
        thought="\n\n".join(part for part in (*thinking, text if thought is None else thought) if part),
        action=action,
        context_only=_is_demo(item),
        extra=_rest(item, "thought", *(() if action.error or in_text else ("tool_calls",))),
    )


def _observation(item: Mapping[str, Any], text: str, turn: Turn, scaffold: str) -> Observation:
    ids = [call.id for call in turn.action.calls] if turn.action else []
    extra = _rest(item, *(("tool_call_ids",) if item.get("tool_call_ids") == ids else ()))
    before = turn.observation
    if before is not None:
        return Observation(f"{before.text}\n{text}", extra={**before.extra, **extra})
    if scaffold.startswith(WINDOWED):
        return Observation(text, SweAgentWindowed("lines").parse_observation(text).output, extra=extra)
    output = "" if text == _NO_OUTPUT else text.removeprefix(_OBSERVED) if text.startswith(_OBSERVED) else None
    return Observation(text, output, extra=extra)


def _with_steps(turns: list[Turn], steps: list[Any]) -> tuple[list[Turn], list[Any]]:
    """The turns with what `trajectory` knows about them, and the steps that belong to no turn."""
    turns, unaligned = list(turns), []
    expert = [i for i, turn in enumerate(turns) if turn.role == "agent" and not turn.context_only]
    following = 0
    for i, value in enumerate(steps):
        where = f"trajectory[{i}]"
        step = expect(value, dict, where)
        action = step.get("action")
        match = next((j for j in range(following, len(expert)) if turns[expert[j]].extra.get("action") == action), None)
        if match is not None:
            following = match + 1
            turns[expert[match]] = _with_step(turns[expert[match]], step, where)
        elif following == len(expert) and action == "submit":
            # Early 1.0 runs end before the submission reaches the history.
            turns.append(_with_step(Turn("agent", *_said(step, where), Action((ToolCall("submit", {}),))), step, where))
        else:
            unaligned.append(_kept(step))
    return turns, unaligned


def _said(step: Mapping[str, Any], where: str) -> tuple[str, str]:
    return content_of(step.get("response"), f"{where}.response"), content_of(step.get("thought"), f"{where}.thought")


def _with_step(turn: Turn, step: Mapping[str, Any], where: str) -> Turn:
    output = content_of(step.get("observation"), f"{where}.observation")
    seen = turn.observation or Observation(output)
    response, thought = _said(step, where)
    repeated = ["action", "observation"]
    repeated += ["response"] if response == turn.text else []
    repeated += ["thought"] if thought in (response, turn.thought) else []
    return replace(turn, observation=replace(seen, output=output), extra={**turn.extra, **without(_kept(step), repeated)})


def _kept(step: Mapping[str, Any]) -> dict[str, Any]:
    # `messages` (once `query`) repeats the history up to the step, as the history processors that `replay_config` names leave
    # it: the same texts, of which older observations may be elided. A file of n steps holds n such copies.
    return without(step, ("messages", "query"))
