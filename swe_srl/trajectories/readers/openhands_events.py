"""One OpenHands event in one form, whichever version wrote it.

Invariant: `read_event` takes any decoded object and returns an Event or raises DocumentError; `rest` holds every field that
has no place of its own in the Event.

V0 events carry `action` with `args`, or `observation` with `content`; V1 events carry a `kind`. The V0 half was built from real
evaluation outputs, the V1 half from the SDK's public event classes. A command's observation is written as both versions write
it for the model: prefix, output and suffix, then the directory, interpreter and exit code in brackets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from swe_srl.trajectories.chat import present, spoken
from swe_srl.trajectories.reader import expect, mapping_of, without

V0_TOOLS = {"run": "execute_bash", "run_ipython": "execute_ipython_cell", "edit": "str_replace_editor"}
"""Tools of actions that carry no tool call, as models without native tool calls made them."""

_NO_CALL = ("message", "system", "recall", "null", "change_agent_state", "condensation", "condensation_request")
_NOT_SEEN = ("recall", "null", "agent_state_changed", "agent_condensation")
_BOOKKEEPING = ("thought", "hidden", "confirmation_state", "blocking", "is_static", "security_risk", "impl_source", "is_input")


@dataclass(frozen=True, slots=True)
class Event:
    """What an event says."""

    kind: Literal["system", "user", "answer", "observation", "other"]
    text: str = ""
    reasoning: tuple[str, ...] = ()
    call: Mapping[str, Any] | None = None
    """answer: the tool call, as OpenAI writes one."""
    refused: str | None = None
    """answer: why OpenHands could not make an action of the call."""
    response: str | None = None
    """answer: the id of the model's response it came in; several events may share one."""
    id: str | None = None
    cause: str | None = None
    """observation: the id of the event it answers."""
    call_id: str | None = None
    """The id of the tool call made or answered."""
    output: str | None = None
    returncode: int | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)


def read_event(event: Mapping[str, Any], where: str) -> Event:
    """The event in one form. Raises DocumentError."""
    if isinstance(event.get("kind"), str):
        return _v1(event, where)
    if "action" in event:
        return _v0_action(event, where)
    return _v0_observation(event, where) if "observation" in event else Event("other", rest=event)


def _v0_action(event: Mapping[str, Any], where: str) -> Event:
    action = expect(event.get("action"), str, f"{where}.action")
    args = mapping_of(event, "args", f"{where}.")
    said = args.get("content")
    text = said if isinstance(said, str) else ""
    if action == "system" or (action == "message" and event.get("source") != "agent"):
        used = ["message"] if event.get("message") == text else []
        return Event("system" if action == "system" else "user", text, rest=_rest(event, "args", "content", used))
    if action == "message":
        return Event("answer", text, id=_id(event), rest=_rest(event, "args", "content"))
    if action in _NO_CALL or event.get("source") != "agent":
        return Event("other", rest=event)
    metadata = mapping_of(event, "tool_call_metadata", f"{where}.")
    call_id = _text(metadata.get("tool_call_id"))
    response = mapping_of(metadata, "model_response", f"{where}.tool_call_metadata.")
    message, call = _called(response, call_id)
    thought = _text(args.get("thought")) or ""
    if call is None:
        named = {"name": V0_TOOLS.get(action, action), "arguments": present(without(args, _BOOKKEEPING))}
        call = {"function": named, **({"id": call_id} if call_id else {})}
    content, thinking, _ = spoken(message.get("content"), f"{where}.tool_call_metadata.model_response")
    reasoning = [text for text in (_text(message.get("reasoning_content")), *thinking) if text]
    return Event(
        "answer",
        content or thought,
        tuple(reasoning),
        call,
        response=_text(response.get("id")),
        id=_id(event),
        call_id=call_id,
        rest=event,
    )


def _called(response: Mapping[str, Any], call_id: str | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The message of a model's response, and its tool call of that id."""
    choices = response.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        return {}, None
    calls = message.get("tool_calls")
    found = [item for item in calls if isinstance(item, dict)] if isinstance(calls, list) else []
    return message, next((item for item in found if item.get("id") == call_id), None)


def _v0_observation(event: Mapping[str, Any], where: str) -> Event:
    kind = event.get("observation")
    if kind in _NOT_SEEN:
        return Event("other", rest=event)
    content = expect(event.get("content"), str, f"{where}.content")
    extras = mapping_of(event, "extras", f"{where}.")
    metadata = mapping_of(extras, "metadata", f"{where}.extras.")
    used = ["content", *(["message"] if event.get("message") == content else [])]
    return Event(
        "observation",
        _as_seen(content, metadata) if kind == "run" else content,
        cause=_number(event.get("cause")),
        call_id=_text(mapping_of(event, "tool_call_metadata", f"{where}.").get("tool_call_id")),
        output=content,
        returncode=_code(metadata.get("exit_code", extras.get("exit_code"))),
        rest=without(event, used),
    )


def _v1(event: Mapping[str, Any], where: str) -> Event:
    kind, source = event["kind"], event.get("source")
    if kind == "SystemPromptEvent":
        text, plain = _content(event.get("system_prompt"), f"{where}.system_prompt")
        return Event("system", text, rest=without(event, ["system_prompt"] if plain else []))
    if kind == "MessageEvent":
        message = mapping_of(event, "llm_message", f"{where}.")
        text, plain = _content(message.get("content"), f"{where}.llm_message.content")
        more, _ = _content(event.get("extended_content"), f"{where}.extended_content")
        text = "\n".join(part for part in (text, more) if part)
        rest = _rest(event, "llm_message", "content") if plain else dict(event)
        if source != "agent":
            return Event("user", text, rest=rest)
        return Event("answer", text, _reasoning(message), id=_id(event), rest=rest)
    if kind == "ActionEvent":
        return _v1_action(event, where)
    return _v1_observation(event, where)


def _v1_action(event: Mapping[str, Any], where: str) -> Event:
    written = mapping_of(event, "tool_call", f"{where}.")
    named = written if "name" in written else mapping_of(written, "function", f"{where}.tool_call.")
    call_id = _text(event.get("tool_call_id")) or _text(written.get("id"))
    name = named.get("name", event.get("tool_name"))
    call = {"id": call_id, "function": {"name": name, "arguments": named.get("arguments")}}
    text, _ = _content(event.get("thought"), f"{where}.thought")
    return Event(
        "answer",
        text,
        _reasoning(event),
        call,
        refused=None if event.get("action") is not None else f"the arguments of {name} were refused",
        response=_text(event.get("llm_response_id")),
        id=_id(event),
        call_id=call_id,
        rest=without(event, ("thought",)),
    )


def _v1_observation(event: Mapping[str, Any], where: str) -> Event:
    answers = partial(
        Event, "observation", cause=_number(event.get("action_id")), call_id=_text(event.get("tool_call_id")), id=_id(event)
    )
    if event["kind"] == "ObservationEvent":
        seen = mapping_of(event, "observation", f"{where}.")
        field_name = "content" if seen.get("content") is not None else "output"
        output, plain = _content(seen.get(field_name), f"{where}.observation.{field_name}")
        metadata = mapping_of(seen, "metadata", f"{where}.observation.")
        more, _ = _content(event.get("extended_content"), f"{where}.extended_content")
        text = "\n".join(part for part in (_as_seen(output, metadata), more) if part)
        code = _code(metadata.get("exit_code", seen.get("exit_code")))
        rest = _rest(event, "observation", field_name) if plain else dict(event)
        return answers(text, output=output, returncode=code, rest=rest)
    if event["kind"] == "AgentErrorEvent":
        return answers(expect(event.get("error"), str, f"{where}.error"), rest=without(event, ("error",)))
    if event["kind"] == "UserRejectObservation":
        reason = expect(event.get("rejection_reason"), str, f"{where}.rejection_reason")
        return answers(f"Action rejected: {reason}", rest=event)
    return Event("other", rest=event)


def _as_seen(content: str, metadata: Mapping[str, Any]) -> str:
    """A command's output as OpenHands shows it to the model."""
    prefix, suffix = _text(metadata.get("prefix")) or "", _text(metadata.get("suffix")) or ""
    shown = f"{prefix}{content}{suffix}"
    if metadata.get("working_dir"):
        shown += f"\n[Current working directory: {metadata['working_dir']}]"
    if metadata.get("py_interpreter_path"):
        shown += f"\n[Python interpreter: {metadata['py_interpreter_path']}]"
    if metadata.get("exit_code", -1) != -1:
        shown += f"\n[Command finished with exit code {metadata['exit_code']}]"
    return shown


def _content(value: object, where: str) -> tuple[str, bool]:
    """A text, one text part, or several, and whether the text is all they hold."""
    text, thinking, plain = spoken([value] if isinstance(value, dict) else value, where)
    single = not isinstance(value, list) or len(value) <= 1
    return text, plain and single and not thinking


def _reasoning(holder: Mapping[str, Any]) -> tuple[str, ...]:
    blocks = holder.get("thinking_blocks")
    thoughts = [block.get("thinking") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    return tuple(text for text in (holder.get("reasoning_content"), *thoughts) if isinstance(text, str) and text)


def _rest(event: Mapping[str, Any], holder: str, used: str, more: list[str] | None = None) -> dict[str, Any]:
    """The event without one field of one of its objects, and without `more` fields of its own."""
    inner = event.get(holder)
    return {**without(event, more or []), **({holder: without(inner, (used,))} if isinstance(inner, dict) else {})}


def _id(event: Mapping[str, Any]) -> str | None:
    return _number(event.get("id"))


def _number(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _code(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value != -1 else None
