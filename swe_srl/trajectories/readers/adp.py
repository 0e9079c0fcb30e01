"""Reads Agent Data Protocol trajectories: `id`, `content` and `details`, as its public schema has them.

Invariant: a run of actions without an observation between them is one turn; a description is a thought. A code action is a call
of the tool named after its language (bash for shells) with the code as `command` for shells and as `code` otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swe_srl.scaffolds.base import Action, Observation, ToolCall
from swe_srl.trajectories.chat import join_thoughts, present
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, resolved_of, without

SHELLS = ("bash", "sh", "shell")
_ACTIONS = ("api_action", "code_action", "message_action")
_OBSERVATIONS = ("text_observation", "image_observation", "web_observation")


class AdpReader:
    """Agent Data Protocol rows."""

    name: str = "adp"

    def detect(self, head: object) -> bool:
        """True for content whose items have a `class_`."""
        content = head.get("content") if isinstance(head, dict) else None
        return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "class_" in content[0]

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        details = mapping_of(document, "details")
        tasks = (details.get("instance_id"), details.get("task_id"), document.get("id"), origin.name)
        scaffold, model = details.get("scaffold"), details.get("model")
        resolved = {"true": True, "false": False, "1": True, "0": False}.get(str(details.get("resolved")).lower())
        return Trajectory(
            id=optional(document.get("id"), str, "id") or origin.name,
            task_id=next(task for task in tasks if isinstance(task, str) and task),
            scaffold=scaffold if isinstance(scaffold, str) and scaffold else "unknown",
            format=self.name,
            turns=tuple(_turns(expect(document.get("content"), list, "content"))),
            model=model if isinstance(model, str) and model else None,
            resolved=resolved_of(resolved),
            extra=without(document, ("id", "content")),
        )


def _turns(content: list[Any]) -> list[Turn]:
    turns: list[Turn] = []
    open_items: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []

    def close() -> None:
        if open_items:
            turns.append(_agent_turn(open_items, seen))
        open_items.clear()
        seen.clear()

    for i, value in enumerate(content):
        item = expect(value, dict, f"content[{i}]")
        kind, source = item.get("class_"), item.get("source")
        if kind in _ACTIONS:
            if seen:
                close()
            _check(item, f"content[{i}].")
            open_items.append(item)
        elif kind not in _OBSERVATIONS:
            raise DocumentError(f"content[{i}].class_: expected one of ADP's actions and observations, found {kind!r}")
        elif open_items and source != "user":
            _text(item, f"content[{i}].content")
            seen.append(item)
        else:
            close()
            rest = present(without(item, ("class_", "content", "source")))
            kept = {"source": source} if source not in (None, "user") else {}
            kept |= {"class_": kind} if kind != "text_observation" else {}
            turns.append(Turn("user", _text(item, f"content[{i}].content"), extra={**kept, **rest}))
    close()
    return turns


def _check(item: Mapping[str, Any], where: str) -> None:
    if item["class_"] == "api_action":
        expect(item.get("function"), str, f"{where}function")
        optional(item.get("kwargs"), dict, f"{where}kwargs")
    else:
        expect(item.get("content"), str, f"{where}content")
    if item["class_"] == "code_action":
        optional(item.get("language"), str, f"{where}language")
    optional(item.get("description"), str, f"{where}description")


def _text(item: Mapping[str, Any], where: str) -> str:
    if item.get("class_") == "text_observation" or isinstance(item.get("content"), str):
        return expect(item.get("content"), str, where)
    return f"[{item.get('class_')}]"


def _agent_turn(items: list[dict[str, Any]], seen: list[dict[str, Any]]) -> Turn:
    calls = [_call(item) for item in items if item["class_"] != "message_action"]
    prose = [item["content"] for item in items if item["class_"] == "message_action"]
    thoughts = [item.get("description") for item in items]
    rests = [present(without(item, ("function", "kwargs", "content", "language"))) for item in items]
    plain = [
        {"class_": item["class_"], **({"description": item["description"]} if item.get("description") else {})}
        for item in items
    ]
    observation = None
    if seen:
        kept = [present(without(item, ("content",) if isinstance(item.get("content"), str) else ())) for item in seen]
        usual = {"class_": "text_observation", "source": "environment"}
        odd = len(seen) > 1 or kept[0] != usual
        text = "\n".join(_text(item, "content") for item in seen)
        observation = Observation(text, extra={"items": kept} if odd else {})
    simple = len(items) == 1 and rests == plain
    return Turn(
        "agent",
        "\n".join(prose),
        join_thoughts(*thoughts, *prose),
        Action(tuple(calls)) if calls else None,
        observation,
        extra={} if simple else {"items": rests},
    )


def _call(item: Mapping[str, Any]) -> ToolCall:
    if item["class_"] == "api_action":
        return ToolCall(item["function"], item.get("kwargs") or {})
    language = item.get("language") or "unknown"
    if language in SHELLS:
        return ToolCall("bash", {"command": item["content"]})
    return ToolCall(language, {"code": item["content"]})
