"""Trajectories as ATIF (Agent Trajectory Interchange Format) documents, and back.

Invariant: `from_atif(to_atif(t)) == t` for every trajectory whose `extra` and arguments are JSON values. What ATIF has no field
for stands under the key `swe_srl` of an `extra`; a thought or an output that occurs in the text beside it is written there as
its [start, end] in that text. How a turn was sampled stands in its `metrics`; of a prompt's token ids only those after what it
shares with the sampled turn before. Documents written by others lose nothing: what we do not use is kept in `extra`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

from atif import Trajectory as AtifDocument

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Sampled, Trajectory, Turn
from swe_srl.trajectories.reader import (
    DocumentError,
    Origin,
    arguments_of,
    expect,
    mapping_of,
    optional,
    optional_seconds,
    without,
)

SCHEMA = "ATIF-v1.8"
KEY = "swe_srl"
VERSION = 1
"""Of what stands under `swe_srl`."""

_READABLE = re.compile(r"ATIF-v1\.[0-8]")
_TASK_KEYS = ("task_id", "instance_id", "task", "task_name")


def is_atif(document: object) -> bool:
    """True for a decoded document of ATIF 1.0 to 1.8."""
    if not isinstance(document, dict):
        return False
    version = document.get("schema_version")
    return isinstance(version, str) and _READABLE.fullmatch(version) is not None


def to_atif(trajectory: Trajectory) -> dict[str, Any]:
    """The trajectory as a validated ATIF 1.8 document.

    Raises ValueError when a system or user turn carries what only an agent's turn has, or the document is not valid ATIF.
    """
    t = trajectory
    ours = {
        "version": VERSION,
        "task_id": t.task_id,
        "format": t.format,
        **_given(resolved=t.resolved, exit_status=t.exit_status, submission=t.submission, timeout_seconds=t.timeout_seconds),
        **_given(workdir=t.workdir),
        **_filled(environment=dict(t.environment), extra=dict(t.extra)),
    }
    document = {
        "schema_version": SCHEMA,
        "trajectory_id": t.id,
        "agent": {"name": t.scaffold, "version": "unknown", **_given(model_name=t.model)},
        "steps": _steps(t.turns),
        "extra": {KEY: ours},
    }
    AtifDocument.model_validate(document)
    return document


def from_atif(document: Mapping[str, Any], origin: Origin | None = None) -> Trajectory:
    """The trajectory in an ATIF 1.0 to 1.8 document, ours or another's.

    `origin` names a trajectory that carries no id of its own. Raises DocumentError, naming the place.
    """
    if not is_atif(document):
        raise DocumentError(f"schema_version: expected ATIF-v1.0 to {SCHEMA}, found {document.get('schema_version')!r}")
    ours = mapping_of(document, "extra").get(KEY)
    return _own(document, expect(ours, dict, f"extra.{KEY}")) if ours else _foreign(document, origin or Origin("unnamed"))


def _given(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _filled(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value}


def _refer(part: str, whole: str) -> str | list[int]:
    start = whole.find(part)
    return part if start < 0 else [start, start + len(part)]


def _resolve(reference: object, whole: str, where: str) -> str:
    if isinstance(reference, str):
        return reference
    span = expect(reference, list, where)
    if len(span) != 2:
        raise DocumentError(f"{where}: expected text or [start, end], found {len(span)} items")
    return whole[expect(span[0], int, where) : expect(span[1], int, where)]


def _steps(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    steps, before = [], Sampled(0, 0)
    for step_id, turn in enumerate(turns, 1):
        step = _step(turn, step_id)
        if turn.sampled is not None:
            step["metrics"] = _metrics(turn.sampled, before)
            before = turn.sampled
        steps.append(step)
    return steps


def _metrics(sampled: Sampled, before: Sampled) -> dict[str, Any]:
    earlier = before.prompt_ids + before.token_ids
    shared = next((i for i, pair in enumerate(zip(sampled.prompt_ids, earlier, strict=False)) if pair[0] != pair[1]), None)
    if shared is None:
        shared = min(len(sampled.prompt_ids), len(earlier))
    prompt = {"shared": shared, "ids": list(sampled.prompt_ids[shared:])} if sampled.prompt_ids else None
    return {
        "prompt_tokens": sampled.prompt_tokens,
        "completion_tokens": sampled.completion_tokens,
        **_filled(completion_token_ids=list(sampled.token_ids), logprobs=list(sampled.logprobs)),
        **_filled(extra=prompt and {KEY: {"prompt": prompt}}),
    }


def _step(turn: Turn, step_id: int) -> dict[str, Any]:
    step: dict[str, Any] = {"step_id": step_id, "source": turn.role, "message": turn.text}
    ours = _filled(extra=dict(turn.extra))
    if turn.role != "agent" and (turn.thought or turn.action or turn.observation or turn.sampled):
        raise ValueError(f"turn {step_id}: a {turn.role} turn has no thought, action or observation, and is not sampled")
    if turn.thought in turn.text:
        ours |= _filled(thought=turn.thought and _refer(turn.thought, turn.text))
    else:
        step["reasoning_content"] = turn.thought
    if turn.action is not None:
        step["tool_calls"] = [_call(call, f"call_{step_id}_{i}") for i, call in enumerate(turn.action.calls)]
        ours |= _given(error=turn.action.error)
    if turn.observation is not None:
        calls = step.get("tool_calls", ())
        step["observation"] = {"results": [_result(turn.observation, calls[0]["tool_call_id"] if len(calls) == 1 else None)]}
    if turn.context_only:
        step["is_copied_context"] = True
    return step | _filled(extra=ours and {KEY: ours})


def _call(call: ToolCall, fallback_id: str) -> dict[str, Any]:
    written = {"tool_call_id": call.id or fallback_id, "function_name": call.name, "arguments": dict(call.arguments)}
    return written if call.id else {**written, "extra": {KEY: {"id": ""}}}


def _result(observation: Observation, call_id: str | None) -> dict[str, Any]:
    ours = _given(returncode=observation.returncode) | _filled(extra=dict(observation.extra))
    if observation.output is not None:
        ours["output"] = _refer(observation.output, observation.text)
    return {**_given(source_call_id=call_id), "content": observation.text, **_filled(extra=ours and {KEY: ours})}


def _own(document: Mapping[str, Any], ours: Mapping[str, Any]) -> Trajectory:
    where = f"extra.{KEY}."
    if ours.get("version") != VERSION:
        raise DocumentError(f"{where}version: this swe-srl reads {VERSION}, found {ours.get('version')!r}")
    agent = expect(document.get("agent"), dict, "agent")
    steps = expect(document.get("steps"), list, "steps")
    environment = mapping_of(ours, "environment", where)
    return Trajectory(
        id=expect(document.get("trajectory_id"), str, "trajectory_id"),
        task_id=expect(ours.get("task_id"), str, f"{where}task_id"),
        scaffold=expect(agent.get("name"), str, "agent.name"),
        format=expect(ours.get("format"), str, f"{where}format"),
        turns=tuple(_own_turns(steps)),
        model=optional(agent.get("model_name"), str, "agent.model_name"),
        resolved=optional(ours.get("resolved"), bool, f"{where}resolved"),
        exit_status=optional(ours.get("exit_status"), str, f"{where}exit_status"),
        submission=optional(ours.get("submission"), str, f"{where}submission"),
        environment={key: expect(value, str, f"{where}environment.{key}") for key, value in environment.items()},
        timeout_seconds=optional_seconds(ours.get("timeout_seconds"), f"{where}timeout_seconds"),
        workdir=optional(ours.get("workdir"), str, f"{where}workdir"),
        extra=mapping_of(ours, "extra", where),
    )


def _own_turns(steps: list[Any]) -> Iterator[Turn]:
    before = Sampled(0, 0)
    for i, item in enumerate(steps):
        where = f"steps[{i}]."
        step = expect(item, dict, f"steps[{i}]")
        turn = _own_turn(step, where)
        if step.get("metrics") is not None:
            before = _own_sampled(expect(step["metrics"], dict, f"{where}metrics"), before, f"{where}metrics.")
            turn = replace(turn, sampled=before)
        yield turn


def _own_sampled(metrics: Mapping[str, Any], before: Sampled, where: str) -> Sampled:
    prompt = mapping_of(_ours(metrics, where), "prompt", where)
    ids, shared = prompt.get("ids", []), expect(prompt.get("shared", 0), int, f"{where}extra.{KEY}.prompt.shared")
    lists = {"completion_token_ids": metrics.get("completion_token_ids") or [], "logprobs": metrics.get("logprobs") or []}
    for name, values in {f"extra.{KEY}.prompt.ids": ids, **lists}.items():
        if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
            raise DocumentError(f"{where}{name}: expected a list of numbers")
    return Sampled(
        expect(metrics.get("prompt_tokens"), int, f"{where}prompt_tokens"),
        expect(metrics.get("completion_tokens"), int, f"{where}completion_tokens"),
        (before.prompt_ids + before.token_ids)[:shared] + tuple(ids),
        tuple(lists["completion_token_ids"]),
        tuple(map(float, lists["logprobs"])),
    )


def _ours(holder: Mapping[str, Any], where: str) -> dict[str, Any]:
    return mapping_of(mapping_of(holder, "extra", where), KEY, f"{where}extra.")


def _own_turn(step: Mapping[str, Any], where: str) -> Turn:
    ours = _ours(step, where)
    text = expect(step.get("message"), str, f"{where}message")
    reasoning = optional(step.get("reasoning_content"), str, f"{where}reasoning_content")
    calls = optional(step.get("tool_calls"), list, f"{where}tool_calls")
    observation = optional(step.get("observation"), dict, f"{where}observation")
    return Turn(
        role=_role(step, where),
        text=text,
        thought=_resolve(ours.get("thought", ""), text, f"{where}thought") if reasoning is None else reasoning,
        action=None if calls is None else _own_action(calls, optional(ours.get("error"), str, f"{where}error"), where),
        observation=None if observation is None else _own_observation(observation, where),
        context_only=bool(optional(step.get("is_copied_context"), bool, f"{where}is_copied_context")),
        extra=mapping_of(ours, "extra", where),
    )


def _role(step: Mapping[str, Any], where: str) -> Literal["system", "user", "agent"]:
    source = step.get("source")
    if source not in ("system", "user", "agent"):
        raise DocumentError(f"{where}source: expected system, user or agent, found {source!r}")
    return cast(Literal["system", "user", "agent"], source)


def _own_action(written: list[Any], error: str | None, where: str) -> Action:
    calls = []
    for i, item in enumerate(written):
        place = f"{where}tool_calls[{i}]."
        call = expect(item, dict, place)
        calls.append(
            ToolCall(
                expect(call.get("function_name"), str, f"{place}function_name"),
                expect(call.get("arguments"), dict, f"{place}arguments"),
                expect(_ours(call, place).get("id", call.get("tool_call_id")), str, f"{place}tool_call_id"),
            )
        )
    return Action(tuple(calls), error)


def _own_observation(observation: Mapping[str, Any], where: str) -> Observation:
    results = expect(observation.get("results"), list, f"{where}observation.results")
    if len(results) != 1:
        raise DocumentError(f"{where}observation.results: expected one, found {len(results)}")
    place = f"{where}observation.results[0]."
    result = expect(results[0], dict, place)
    ours = _ours(result, place)
    text = expect(result.get("content"), str, f"{place}content")
    return Observation(
        text,
        _resolve(ours["output"], text, f"{place}output") if "output" in ours else None,
        optional(ours.get("returncode"), int, f"{place}returncode"),
        mapping_of(ours, "extra", place),
    )


def _foreign(document: Mapping[str, Any], origin: Origin) -> Trajectory:
    agent = mapping_of(document, "agent")
    extra = mapping_of(document, "extra")
    steps = expect(document.get("steps"), list, "steps")
    tasks = (holder.get(key) for holder in (extra, mapping_of(agent, "extra", "agent.")) for key in _TASK_KEYS)
    ids = (document.get("trajectory_id"), document.get("session_id"), origin.name)
    resolved = extra.get("resolved")
    return Trajectory(
        id=next(value for value in ids if isinstance(value, str) and value),
        task_id=next((task for task in tasks if isinstance(task, str) and task), origin.stem),
        scaffold=optional(agent.get("name"), str, "agent.name") or "unknown",
        format="atif",
        turns=tuple(_foreign_turn(expect(step, dict, f"steps[{i}]"), i) for i, step in enumerate(steps)),
        model=optional(agent.get("model_name"), str, "agent.model_name"),
        resolved=resolved if isinstance(resolved, bool) else None,
        # Subagents' trajectories are kept, not read: their steps answer to another prompt and another agent.
        extra=without(document, ("steps", "agent", "trajectory_id")) | {"agent": without(agent, ("name", "model_name"))},
    )


def _foreign_turn(step: Mapping[str, Any], index: int) -> Turn:
    where = f"steps[{index}]."
    role = _role(step, where)
    message = _parts(step.get("message"), f"{where}message")
    kept = without(step, ("source", "reasoning_content", "tool_calls", "observation", "is_copied_context"))
    kept = without(kept, [key for key, value in (("step_id", index + 1), ("message", message)) if kept.get(key) == value])
    observation = mapping_of(step, "observation", where)
    results = optional(observation.get("results"), list, f"{where}observation.results") or []
    observed = "\n".join(_result_text(result, f"{where}observation.results[{i}]") for i, result in enumerate(results))
    fields = {"source_call_id", "content"}
    plain = len(results) <= 1 and all(isinstance(item.get("content"), str) and set(item) <= fields for item in results)
    if not plain or set(observation) - {"results"}:
        kept["observation"] = observation
    copied = bool(optional(step.get("is_copied_context"), bool, f"{where}is_copied_context"))
    if role != "agent":
        return Turn(role, "\n".join(text for text in (message, observed) if text), context_only=copied, extra=kept)
    reasoning = optional(step.get("reasoning_content"), str, f"{where}reasoning_content")
    calls = optional(step.get("tool_calls"), list, f"{where}tool_calls") or []
    action = _foreign_action(calls, where)
    if (action and action.error) or any(set(call) - {"tool_call_id", "function_name", "arguments"} for call in calls):
        kept["tool_calls"] = calls
    return Turn(
        role=role,
        text=message,
        thought="\n\n".join(text for text in (reasoning, message) if text),
        action=action,
        observation=Observation(observed) if results else None,
        # An agent step that no model call led to is the harness's own doing: seen, but nothing to learn from.
        context_only=copied or step.get("llm_call_count") == 0,
        extra=kept,
    )


def _foreign_action(written: list[Any], where: str) -> Action | None:
    calls = []
    for i, item in enumerate(written):
        place = f"{where}tool_calls[{i}]."
        call = expect(item, dict, place)
        name = expect(call.get("function_name"), str, f"{place}function_name")
        arguments = arguments_of(call.get("arguments"))
        if arguments is None:
            return Action(error=f"the arguments of {name} are not a JSON object")
        calls.append(ToolCall(name, arguments, optional(call.get("tool_call_id"), str, f"{place}tool_call_id") or ""))
    return Action(tuple(calls)) if calls else None


def _parts(content: object, where: str) -> str:
    """The text of a message; an image or sound stands in it as its kind and path."""
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for i, item in enumerate(expect(content, list, where)):
        part = expect(item, dict, f"{where}[{i}]")
        if part.get("type") == "text":
            texts.append(expect(part.get("text"), str, f"{where}[{i}].text"))
        else:
            texts.append(f"[{part.get('type')}: {mapping_of(part, 'source', f'{where}[{i}].').get('path')}]")
    return "\n".join(texts)


def _result_text(result: object, where: str) -> str:
    return _parts(expect(result, dict, where).get("content"), f"{where}.content")
