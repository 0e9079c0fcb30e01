"""Chat messages to turns and back: what every format made of messages with roles shares.

Invariant: `to_messages(read_turns(messages))` gives the roles, contents and tool calls of plain messages back, character for
character; every other field of a message is in its turn's `extra` (a field that is null holds nothing and is left out).

An answer's calls come from its `tool_calls`, or from its text by a `Dialect`. Calls that no message answers although the run
went on were never executed: their turn is marked and is no step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.model import Turn
from swe_srl.trajectories.reader import DocumentError, arguments_of, expect, optional, without

REASONING = ("reasoning_content", "reasoning", "thinking")
"""Fields in which providers keep what a model thought before it answered."""
CALLS_REST = "tool_calls_rest"
"""Key of a turn's `extra`: for each call what the source says about it beyond name, arguments and id."""
RESULTS = "results"
"""Key of an observation's `extra`: the length in characters, and the other fields, of each of several tool messages."""

_THINK_TAGS = re.compile(r"</?think(?:ing)?>")


@dataclass(frozen=True, slots=True)
class Said:
    """An answer taken apart."""

    thought: str
    action: Action | None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a scaffold writes what has no place in OpenAI's messages."""

    parse: Callable[[str, Mapping[str, Any]], Said] | None = None
    """Reads an answer without `tool_calls` from its text and message; None: such an answer is a message without an action."""
    observe: Callable[[str], Observation] = Observation
    """Reads what the environment answered to one call."""


def read_turns(messages: Sequence[Any], dialect: Dialect = Dialect(), where: str = "messages") -> list[Turn]:
    """The turns of OpenAI-style messages. Raises DocumentError naming the message."""
    turns: list[Turn] = []
    answers: dict[int, list[_Answer]] = {}
    asked: dict[str, int] = {}
    last = -1
    for i, value in enumerate(messages):
        place = f"{where}[{i}]"
        message = expect(value, dict, place)
        role = message.get("role")
        text, thinking, plain = spoken(message.get("content"), f"{place}.content")
        rest = present(without(message, ("role", "is_demo", *(["content"] if plain else []))))
        if role == "assistant":
            last = len(turns)
            turns.append(_agent_turn(text, thinking, rest, message, dialect, place))
            asked |= {call.id: last for call in _calls(turns[last])}
        elif role in ("tool", "function"):
            call_id = rest.get("tool_call_id")
            index = asked.get(call_id, last) if isinstance(call_id, str) else last
            if index < 0 or turns[index].action is None:
                raise DocumentError(f"{place}: a tool's message where no tool was called")
            answers.setdefault(index, []).append(_Answer(text, rest))
        elif role == "user" and 0 <= last == len(turns) - 1 and last not in answers and _awaits_text(turns[last]):
            answers[last] = [_Answer(text, rest)]
        elif role in ("system", "developer", "user"):
            extra = rest | ({"role": role} if role == "developer" else {})
            turns.append(Turn("user" if role == "user" else "system", text, context_only=_is_demo(message), extra=extra))
        else:
            raise DocumentError(f"{place}.role: expected system, user, assistant or tool, found {role!r}")
    for index, given in answers.items():
        turns[index] = replace(turns[index], observation=_observation(given, turns[index], dialect))
    return mark_never_executed(turns)


def mark_never_executed(turns: list[Turn]) -> list[Turn]:
    """The turns, with an error in place of every action that nothing answered although the run went on."""
    last = max((i for i, turn in enumerate(turns) if turn.role == "agent"), default=-1)
    return [
        never_executed(turn, "nothing answered it") if i < last and turn.is_step and turn.observation is None else turn
        for i, turn in enumerate(turns)
    ]


def never_executed(turn: Turn, why: str) -> Turn:
    """The turn of an answer that was not carried out; its calls are kept in `extra`."""
    calls = {"tool_calls": openai_calls(turn)} if is_structured(turn) else {}
    return replace(turn, action=Action(error=f"never executed: {why}"), extra={**without(turn.extra, (CALLS_REST,)), **calls})


def spoken(content: object, where: str) -> tuple[str, list[str], bool]:
    """A message's text, its thoughts, and whether these two are all it holds. Raises DocumentError.

    A part that is neither text nor thought (an image) stands in the text as its kind.
    """
    if content is None or isinstance(content, str):
        return content or "", [], True
    texts: list[str] = []
    thoughts: list[str] = []
    plain = True
    for i, value in enumerate(expect(content, list, where)):
        part = expect(value, dict, f"{where}[{i}]")
        kind = part.get("type", "text")
        if kind in ("text", "input_text", "output_text"):
            texts.append(expect(part.get("text"), str, f"{where}[{i}].text"))
            plain = plain and not set(present(part)) - {"type", "text"} and kind == "text"
        else:
            thought = part.get("thinking", part.get("text")) if kind in ("thinking", "reasoning") else None
            (thoughts if isinstance(thought, str) else texts).append(thought if isinstance(thought, str) else f"[{kind}]")
            plain = False
    return "".join(texts), thoughts, plain


def join_thoughts(*thoughts: str | None) -> str:
    """Reasoning and prose as one thought, without think tags, each text once."""
    texts = (_THINK_TAGS.sub("", thought).strip() for thought in thoughts if thought)
    return "\n\n".join(dict.fromkeys(text for text in texts if text))


def reasoning_of(message: Mapping[str, Any]) -> list[str]:
    """What the fields for reasoning and thinking blocks of a message hold."""
    blocks = message.get("thinking_blocks")
    thoughts = [block.get("thinking") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    return [text for text in (*(message.get(field) for field in REASONING), *thoughts) if isinstance(text, str)]


def read_calls(calls: list[Any], where: str) -> tuple[Action, list[dict[str, Any]]]:
    """OpenAI tool calls as an action, and what each says beyond that. A call that cannot be read makes the action an error."""
    read, rests = [], []
    for i, value in enumerate(calls):
        call = expect(value, dict, f"{where}[{i}]")
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, written, call_id = function.get("name"), function.get("arguments"), call.get("id")
        arguments = {} if written in ("", None) else arguments_of(written)
        if not isinstance(name, str) or not name:
            return Action(error=f"tool call {i + 1} has no function name"), []
        if arguments is None:
            return Action(error=f"the arguments of {name} are not a JSON object"), []
        read.append(ToolCall(name, arguments, call_id if isinstance(call_id, str) else ""))
        rest = present(without(call, ("function", "id"))) | present(without(function, ("name", "arguments")))
        rest = {key: value for key, value in rest.items() if (key, value) != ("type", "function")}
        rests.append(rest | ({} if written == _written(arguments) else {"arguments": written}))
    return Action(tuple(read)), rests


def openai_calls(turn: Turn) -> list[dict[str, Any]]:
    """A turn's calls as OpenAI writes them; arguments as the source wrote them."""
    rests = turn.extra.get(CALLS_REST) or [{}] * len(_calls(turn))
    return [
        {
            **({"id": call.id} if call.id else {}),
            "type": rest.get("type", "function"),
            "function": {"name": call.name, "arguments": rest.get("arguments", _written(call.arguments))},
        }
        for call, rest in zip(_calls(turn), rests, strict=True)
    ]


def is_structured(turn: Turn) -> bool:
    """True when a turn's calls stood beside its text, false when they were read from it."""
    return CALLS_REST in turn.extra or any(call.id for call in _calls(turn))


def to_messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The messages that the turns were read from: role, content, tool calls and their ids."""
    messages: list[dict[str, Any]] = []
    for turn in turns:
        if turn.role != "agent":
            messages.append({"role": turn.extra.get("role", turn.role), "content": turn.text})
            continue
        calls = openai_calls(turn) if is_structured(turn) else turn.extra.get("tool_calls") or []
        messages.append({"role": "assistant", "content": turn.text, **({"tool_calls": calls} if calls else {})})
        if turn.observation is not None:
            ids = [call.id for call in _calls(turn)]
            role = "tool" if calls else "user"
            messages += [{"role": role, **part} for part in split_observation(turn.observation, ids if role == "tool" else [])]
    return messages


def split_observation(observation: Observation, ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The content, and the call answered, of each message an observation came in."""
    results = observation.extra.get(RESULTS)
    if not isinstance(results, list):
        call_id = observation.extra.get("tool_call_id", ids[0] if ids else "")
        return [{"content": observation.text, **({"tool_call_id": call_id} if call_id else {})}]
    parts, start = [], 0
    for i, result in enumerate(results):
        call_id = result.get("tool_call_id", ids[i] if i < len(ids) else "")
        text = observation.text[start : start + result["length"]]
        parts.append({"content": text, **({"tool_call_id": call_id} if call_id else {})})
        start += result["length"] + 1
    return parts


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not null."""
    return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    rest: Mapping[str, Any]


def _written(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)


def _calls(turn: Turn) -> tuple[ToolCall, ...]:
    return turn.action.calls if turn.action else ()


def _is_demo(message: Mapping[str, Any]) -> bool:
    return message.get("is_demo") is True


def _awaits_text(turn: Turn) -> bool:
    """True for an answer to which a user's message is the environment's: its calls stood in its text, or were malformed."""
    return turn.action is not None and not is_structured(turn)


def _agent_turn(
    text: str, thinking: list[str], rest: dict[str, Any], message: Mapping[str, Any], dialect: Dialect, where: str
) -> Turn:
    calls = optional(message.get("tool_calls"), list, f"{where}.tool_calls") or []
    prose, action = text, None
    if calls:
        action, rests = read_calls(calls, f"{where}.tool_calls")
        if not action.error:
            unnamed = not any(call.id for call in action.calls)
            rest = without(rest, ("tool_calls",)) | ({CALLS_REST: rests} if any(rests) or unnamed else {})
    elif dialect.parse is not None:
        said = dialect.parse(text, message)
        prose, action = said.thought, said.action
        rest = {key: value for key, value in rest.items() if (key, value) != ("tool_calls", [])}
    thought = join_thoughts(*reasoning_of(message), *thinking, prose)
    return Turn("agent", text, thought, action, context_only=_is_demo(message), extra=rest)


def _observation(answers: list[_Answer], turn: Turn, dialect: Dialect) -> Observation:
    ids = [call.id for call in _calls(turn)]
    if len(answers) == 1 and len(ids) <= 1:
        seen = dialect.observe(answers[0].text)
        rest = answers[0].rest
        repeated = ids and ids[0] and rest.get("tool_call_id") == ids[0]
        return replace(seen, extra={**seen.extra, **without(rest, ("tool_call_id",) if repeated else ())})
    results = []
    for i, answer in enumerate(answers):
        repeated = i < len(ids) and ids[i] and answer.rest.get("tool_call_id") == ids[i]
        results.append({"length": len(answer.text), **without(answer.rest, ("tool_call_id",) if repeated else ())})
    return Observation("\n".join(answer.text for answer in answers), extra={RESULTS: results})
