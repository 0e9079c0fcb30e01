"""Reads runs as OpenAI Responses items, bare or in NeMo Gym's rollouts (`responses_create_params` and `response`).

Invariant: items that one answer may hold (reasoning, message, function calls) make one turn until an output follows or a
message follows a call. An item of a kind that is not known is kept in the `extra` of the turn it stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swe_srl.scaffolds.base import Action, Observation
from swe_srl.trajectories.chat import RESULTS, join_thoughts, mark_never_executed, present, read_calls, spoken
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, resolved_of, without


class OpenAIResponsesReader:
    """Responses items."""

    name: str = "openai-responses"

    def detect(self, head: object) -> bool:
        """True for a rollout with parameters and a response, or for `input` or `output` items."""
        if not isinstance(head, dict) or "expected_action" in head:
            return False
        if isinstance(head.get("responses_create_params"), dict):
            return isinstance(head.get("response"), dict)
        return any(_are_items(head.get(key)) for key in ("input", "output"))

    def read(self, document: Mapping[str, Any], origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        if "responses_create_params" not in document:
            document = {"responses_create_params": {"input": document.get("input")}, "response": without(document, ("input",))}
        params = mapping_of(document, "responses_create_params")
        response = mapping_of(document, "response")
        metadata = mapping_of(params, "metadata", "responses_create_params.")
        given = read_items(params.get("input"), "responses_create_params.input")
        made = read_items(response.get("output"), "response.output")
        if not given and not made:
            raise DocumentError("response.output: no items")
        problem = metadata.get("problem_statement")
        if not any(turn.role == "user" for turn in given) and isinstance(problem, str):
            # The harness wrote its own prompt and did not keep it; the issue stands beside it.
            given = [*given, Turn("user", problem, extra={"from": "metadata.problem_statement"})]
        patch = next((holder.get("model_patch") for holder in (document, mapping_of(document, "metadata"))), None)
        config = mapping_of(document, "instance_config")
        models = (response.get("model"), params.get("model"))
        return Trajectory(
            id=origin.name,
            task_id=_task(document, metadata) or origin.name,
            scaffold=scaffold_of(document, config),
            format=self.name,
            turns=tuple(mark_never_executed([*given, *made])),
            model=next((model for model in models if isinstance(model, str) and model), None),
            resolved=_resolved(document),
            submission=patch if isinstance(patch, str) else None,
            extra={
                **without(document, ("response", "responses_create_params")),
                "responses_create_params": without(params, ("input",)),
                "response": without(response, ("output",)),
            },
        )


def scaffold_of(document: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The harness that ran the agent, as the row names it."""
    names = (config.get("name"), mapping_of(document, "agent_ref").get("name"), "unknown")
    return next(name for name in names if isinstance(name, str) and name)


def read_items(value: object, where: str) -> list[Turn]:
    """The turns of Responses items; a text is a user's message. Raises DocumentError."""
    if value is None or isinstance(value, str):
        return [Turn("user", value)] if value else []
    turns: list[Turn] = []
    answer: _Answer | None = None
    for i, raw in enumerate(expect(value, list, where)):
        place = f"{where}[{i}]"
        item = expect(raw, dict, place)
        kind, role = item.get("type", "message" if "role" in item else None), item.get("role")
        if kind == "message" and role != "assistant":
            _close(answer, turns)
            answer = None
            text, _, plain = spoken(item.get("content"), f"{place}.content")
            if role not in ("system", "developer", "user"):
                raise DocumentError(f"{place}.role: expected system, developer, user or assistant, found {role!r}")
            rest = present(without(item, ("type", "role", *(["content"] if plain else []))))
            turns.append(Turn("user" if role == "user" else "system", text, extra=rest))
            continue
        if kind == "function_call_output":
            if answer is None or not (answer.calls or answer.outputs):
                raise DocumentError(f"{place}: an output where nothing was called")
            answer.outputs.append(item)
            continue
        if answer is None or answer.outputs or (kind == "message" and answer.calls):
            _close(answer, turns)
            answer = _Answer(place)
        answer.add(kind, item)
    _close(answer, turns)
    return turns


@dataclass(slots=True)
class _Answer:
    """The items of one answer and of what was returned to it, while they come in."""

    where: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def add(self, kind: object, item: dict[str, Any]) -> None:
        """Enter an item of the agent's."""
        if kind == "message":
            self.messages.append(item)
        elif kind == "function_call":
            self.calls.append(item)
        else:
            self.others.append(item)
            for name in ("summary", "content") if kind == "reasoning" else ():
                parts = item.get(name)
                texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
                self.thoughts += [text for text in texts if isinstance(text, str)]

    def turn(self) -> Turn:
        """The turn they make."""
        texts = [spoken(item.get("content"), f"{self.where}.content") for item in self.messages]
        text = "".join(text for text, _, _ in texts)
        action, rests = _read_function_calls(self.calls, self.where)
        kept: dict[str, Any] = {"messages": [without(item, _repeated(item)) for item in self.messages]}
        if len(texts) > 1:
            kept["messages"] = [{"length": len(part[0]), **rest} for part, rest in zip(texts, kept["messages"], strict=True)]
        kept |= {"tool_calls": self.calls} if action and action.error else {"tool_calls_rest": rests}
        kept |= {"items": self.others}
        extra = {key: value for key, value in kept.items() if value and any(value)}
        thought = join_thoughts(*self.thoughts, text)
        return Turn("agent", text, thought, action, self._observation(action), extra=extra)

    def _observation(self, action: Action | None) -> Observation | None:
        if not self.outputs:
            return None
        ids = [call.id for call in action.calls] if action else []
        texts = [_output_text(item, self.where) for item in self.outputs]
        rests = []
        for i, item in enumerate(self.outputs):
            used = ["type", "output"] if isinstance(item.get("output"), str) else ["type"]
            rests.append(without(present(item), [*used, "call_id"] if i < len(ids) and item.get("call_id") == ids[i] else used))
        if len(texts) == 1 and len(ids) <= 1:
            return Observation(texts[0], extra=rests[0])
        results = [{"length": len(text), **_renamed(rest)} for text, rest in zip(texts, rests, strict=True)]
        return Observation("\n".join(texts), extra={RESULTS: results})


def _close(answer: _Answer | None, turns: list[Turn]) -> None:
    if answer is not None:
        turns.append(answer.turn())


def _read_function_calls(items: list[dict[str, Any]], where: str) -> tuple[Action | None, list[dict[str, Any]]]:
    if not items:
        return None, []
    called = ("name", "arguments")
    calls = [
        {
            **present(without(item, ("type", "call_id", "id", *called))),
            "id": item.get("call_id", item.get("id")),
            "function": {key: item.get(key) for key in called},
            **({"item_id": item["id"]} if item.get("id") not in (None, item.get("call_id")) else {}),
        }
        for item in items
    ]
    return read_calls(calls, where)


def _renamed(rest: Mapping[str, Any]) -> dict[str, Any]:
    return {"tool_call_id" if key == "call_id" else key: value for key, value in rest.items()}


def _repeated(item: Mapping[str, Any]) -> list[str]:
    """Fields of an assistant's message that its turn has already: a content of plain texts, and nulls."""
    content = item.get("content")
    empty: tuple[object, ...] = (None, [], "")
    plain = isinstance(content, str) or (
        isinstance(content, list)
        and len(content) <= 1
        and all(not {key for key, value in part.items() if value not in empty} - {"type", "text"} for part in content)
    )
    nulls = [key for key, value in item.items() if value in empty]
    return ["type", "role", *nulls, *(["content"] if plain else [])]


def _output_text(item: Mapping[str, Any], where: str) -> str:
    output = item.get("output")
    return spoken(output, f"{where}.output")[0] if output is None or isinstance(output, str | list) else str(output)


def _are_items(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and (isinstance(first.get("type"), str) or isinstance(first.get("role"), str))


def _task(document: Mapping[str, Any], metadata: Mapping[str, Any]) -> str | None:
    task = document.get("instance_id") or metadata.get("instance_id")
    return optional(task, str, "instance_id")


def _resolved(document: Mapping[str, Any]) -> bool | None:
    if document.get("resolved") is not None:
        return resolved_of(document["resolved"])
    reward = document.get("reward")
    return bool(reward == 1) if isinstance(reward, int | float) else None
