"""How an answer is written: a thought in `<think>` tags, then exactly one tool call in XML tags.

    <think>
    The error comes from the parser; look at it first.
    </think>
    <function=bash>
    <parameter=command>grep -n "def parse" -r src</parameter>
    </function>

Invariant: `parse_answer(render_answer(thought, action), tools)` gives the same action back, character for character, for every
single-call action that `render_action` accepts and whose arguments conform to the tool's JSON schema.

The tag form is the one SWE-agent and SWE-smith write. The paper fixes neither it nor what makes an answer invalid; both are
stated here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from swe_srl.scaffolds.base import Action, ToolCall

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
PARAMETER_CLOSE, FUNCTION_CLOSE = "</parameter>", "</function>"

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
_FUNCTION = re.compile(rf"<function=({_NAME.pattern})>")
_PARAMETER = re.compile(rf"<parameter=({_NAME.pattern})>")
_SPACE = re.compile(r"\s*")
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy said, taken apart."""

    thought: str | None
    """The text between the think tags without surrounding whitespace; None where there is no complete thought."""
    action: Action | None
    """The one tool call; None exactly when there is an `error`."""
    action_text: str
    """The action as written, from `<function=` to `</function>`; for an invalid answer whatever follows the thought."""
    error: str | None
    """Why the answer is invalid, as `kind` or `kind: detail`; None when it is valid."""

    @property
    def error_kind(self) -> str | None:
        """The part of `error` that does not depend on the answer's words, for counting."""
        return None if self.error is None else self.error.split(":", 1)[0]


class _FormatError(Exception):
    """Carries the message of an invalid answer from where it is found to `parse_answer`."""


def render_action(action: Action) -> str:
    """Write an action's tool calls as XML blocks, one after another, separated by a newline.

    String arguments are written verbatim, others as JSON. Raises ValueError for what the format cannot hold: an action without
    calls, a tool or parameter name with characters other than letters, digits and `_.:-`, a string that contains
    `</parameter>`, and a value that does not survive JSON (a tuple, a set, NaN, keys that are no strings).
    """
    if not action.calls:
        raise ValueError(f"an action without tool calls cannot be written ({action.error or 'no calls'})")
    return "\n".join(_render_call(call) for call in action.calls)


def render_answer(thought: str, action: Action) -> str:
    """Write a whole answer, as a supervised target: the thought in think tags, then the action.

    Whitespace around the thought is dropped. Raises ValueError for an empty thought, a thought that contains a think tag, and
    whatever `render_action` refuses.
    """
    thought = thought.strip()
    if not thought:
        raise ValueError("an answer needs a thought, and this one is empty")
    if THINK_OPEN in thought or THINK_CLOSE in thought:
        raise ValueError("a thought that contains a think tag cannot be written")
    return f"{THINK_OPEN}\n{thought}\n{THINK_CLOSE}\n{render_action(action)}"


def parse_answer(text: str, tools: Sequence[Mapping[str, Any]], *, truncated: bool = False) -> Answer:
    """Read an answer strictly. Never raises: an invalid answer comes back with its `error`.

    The rule, whitespace between the parts being free:

    1. exactly one `<think>…</think>` comes first and is not blank
       (`missing think`, `unclosed think`, `empty think`, `nested think`, `repeated think`);
    2. exactly one `<function=NAME>…</function>` follows directly (`no action`, `text before the action`, `several actions`);
    3. inside it are only `<parameter=KEY>VALUE</parameter>` elements, each key once (`malformed action`); VALUE is everything
       up to the first `</parameter>`, newlines included, and may hold any other tag;
    4. NAME is one of `tools` (OpenAI-style definitions) and the arguments conform to its JSON schema: type, enum, required,
       item type (`unknown tool`, `unknown parameter`, `missing parameter`, `wrong value`); where the schema allows a string, or
       says nothing, VALUE is taken verbatim, otherwise it is read as JSON;
    5. nothing follows (`text after the action`).

    `truncated` says that the text was cut at the length limit: never valid, even if it looks complete (`truncated output`).
    """
    thought, rest = None, text.strip()
    try:
        thought, rest = _split_thought(text)
        if truncated:
            raise _FormatError("truncated output")
        call, action_text = _parse_action(rest)
        return Answer(thought, Action((_check_call(call, tools),)), action_text, None)
    except _FormatError as error:
        return Answer(thought, None, rest, "truncated output" if truncated else str(error))


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a tool definition that holds `name`, `description` and `parameters`."""
    function: Mapping[str, Any] = tool.get("function", tool)
    return function


def _render_call(call: ToolCall) -> str:
    lines = [f"<function={_checked_name(call.name)}>"]
    lines += [
        f"<parameter={_checked_name(key)}>{_render_value(value)}{PARAMETER_CLOSE}" for key, value in call.arguments.items()
    ]
    return "\n".join([*lines, FUNCTION_CLOSE])


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be written as a tool or parameter name: use letters, digits and _.:- only")
    return name


def _render_value(value: Any) -> str:
    if isinstance(value, str):
        if PARAMETER_CLOSE in value:
            raise ValueError(f"a string that contains {PARAMETER_CLOSE} cannot be written")
        return value
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except TypeError as error:
        raise ValueError(f"{value!r} cannot be written as JSON") from error
    if json.loads(text) != value:
        raise ValueError(f"{value!r} does not survive JSON")
    # The tag can only stand inside a JSON string, where an escaped slash means the same.
    return text.replace(PARAMETER_CLOSE, r"<\/parameter>")


def _split_thought(text: str) -> tuple[str, str]:
    """The thought, and the stripped text after it."""
    start = _SPACE.match(text).end()  # type: ignore[union-attr]
    if not text.startswith(THINK_OPEN, start):
        raise _FormatError("missing think")
    start += len(THINK_OPEN)
    end = text.find(THINK_CLOSE, start)
    if end < 0:
        raise _FormatError("unclosed think")
    thought = text[start:end].strip()
    if THINK_OPEN in thought:
        raise _FormatError("nested think")
    if not thought:
        raise _FormatError("empty think")
    return thought, text[end + len(THINK_CLOSE) :].strip()


def _parse_action(rest: str) -> tuple[ToolCall, str]:
    """The only call in a stripped text, with string values, and the call's text."""
    if rest.startswith((THINK_OPEN, THINK_CLOSE)):
        raise _FormatError("repeated think")
    opening = _FUNCTION.match(rest)
    if opening is None:
        _refuse_opening(rest)
    arguments: dict[str, str] = {}
    position = _skip_space(rest, opening.end())
    while not rest.startswith(FUNCTION_CLOSE, position):
        parameter = _PARAMETER.match(rest, position)
        if parameter is None:
            left = rest[position:]
            raise _FormatError(
                "malformed action: " + (f"text between parameters {left[:40]!r}" if left else "unclosed function")
            )
        end = rest.find(PARAMETER_CLOSE, parameter.end())
        if end < 0:
            raise _FormatError(f"malformed action: unclosed parameter {parameter[1]!r}")
        if parameter[1] in arguments:
            raise _FormatError(f"malformed action: parameter {parameter[1]!r} given twice")
        arguments[parameter[1]] = rest[parameter.end() : end]
        position = _skip_space(rest, end + len(PARAMETER_CLOSE))
    position += len(FUNCTION_CLOSE)
    after = rest[position:].strip()
    if after.startswith("<function="):
        raise _FormatError("several actions")
    if after:
        raise _FormatError(f"text after the action: {after[:40]!r}")
    return ToolCall(opening[1], arguments), rest[:position]


def _refuse_opening(rest: str) -> NoReturn:
    if "<function=" not in rest:
        raise _FormatError("no action")
    if rest.startswith("<function="):
        raise _FormatError("malformed action: unreadable function tag")
    raise _FormatError(f"text before the action: {rest[:40]!r}")


def _skip_space(text: str, position: int) -> int:
    return _SPACE.match(text, position).end()  # type: ignore[union-attr]


def _check_call(call: ToolCall, tools: Sequence[Mapping[str, Any]]) -> ToolCall:
    """The call with its values read by the tool's schema."""
    function = next((f for f in map(function_of, tools) if f["name"] == call.name), None)
    if function is None:
        raise _FormatError(f"unknown tool: {call.name!r}")
    schema = function.get("parameters") or {}
    properties = schema.get("properties") or {}
    for key in call.arguments:
        if key not in properties:
            raise _FormatError(f"unknown parameter: {key!r} of {call.name}")
    for key in schema.get("required") or ():
        if key not in call.arguments:
            raise _FormatError(f"missing parameter: {key!r} of {call.name}")
    return ToolCall(call.name, {key: _read_value(key, text, properties[key]) for key, text in call.arguments.items()})


def _read_value(key: str, text: str, schema: Mapping[str, Any]) -> Any:
    types = _allowed_types(schema)
    if not types or "string" in types:
        value: Any = text
    else:
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            raise _FormatError(f"wrong value: {key!r} is not {' or '.join(types)}: {text[:40]!r}") from None
    if not _conforms(value, schema):
        raise _FormatError(f"wrong value: {key!r} does not conform to the tool's schema: {text[:40]!r}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _allowed_types(schema: Mapping[str, Any]) -> list[str]:
    """The JSON types a schema allows, through `anyOf` and `oneOf`; empty where it does not say."""
    declared = schema.get("type", [])
    types = [declared] if isinstance(declared, str) else list(declared)
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        types += _allowed_types(option)
    return types


def _conforms(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value has an allowed type, is one of `enum`, and its items conform; other keywords are not looked at."""
    types = _allowed_types(schema)
    if types and not any(_has_type(value, name) for name in types):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    items = schema.get("items")
    return not (isinstance(value, list) and isinstance(items, Mapping)) or all(_conforms(item, items) for item in value)


def _has_type(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    return isinstance(value, _TYPES.get(name, (object,)))
