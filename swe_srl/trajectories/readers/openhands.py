"""Reads OpenHands event histories, V0 and V1: evaluation outputs, and bare arrays of events.

Invariant: events are taken in order. Actions that came in one response of the model are one turn; what answers them is its
observation. What an event holds and has no place of its own is in the `extra` of its turn, an observation's in that of the
observation; events that are neither message nor action nor seen by the model are in the run's `extra.events`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swe_srl.scaffolds.base import Action, Observation
from swe_srl.trajectories.chat import CALLS_REST, RESULTS, join_thoughts, mark_never_executed, read_calls
from swe_srl.trajectories.model import Trajectory, Turn
from swe_srl.trajectories.reader import DocumentError, Origin, expect, mapping_of, optional, resolved_of, without
from swe_srl.trajectories.readers.openhands_events import Event, read_event

_PLACES = ("history", "trajectory", "events")


class OpenHandsReader:
    """OpenHands events."""

    name: str = "openhands"

    def detect(self, head: object) -> bool:
        """True for an array of events, bare or as the history of a run."""
        return any(_are_events(head.get(key)) for key in _PLACES) if isinstance(head, dict) else _are_events(head)

    def read(self, document: Any, origin: Origin) -> Trajectory:
        """The trajectory. Raises DocumentError."""
        run = document if isinstance(document, dict) else {"history": document}
        key = next(key for key in _PLACES if _are_events(run.get(key)))
        metadata = mapping_of(run, "metadata")
        configs = (metadata.get("llm_config"), metadata.get("llm"))
        models = [config.get("model") for config in configs if isinstance(config, dict)]
        result = mapping_of(run, "test_result")
        patch = result.get("git_patch")
        reports = (run.get("report"), result.get("report"), run)
        outcomes = [report.get("resolved") for report in reports if isinstance(report, dict)]
        turns, others = _turns(expect(run[key], list, key), key)
        return Trajectory(
            id=origin.name,
            task_id=optional(run.get("instance_id"), str, "instance_id") or origin.name,
            scaffold=self.name,
            format=self.name,
            turns=tuple(turns),
            model=next((model for model in models if isinstance(model, str)), None),
            resolved=resolved_of(next((outcome for outcome in outcomes if outcome is not None), None)),
            exit_status=optional(run.get("error"), str, "error"),
            submission=patch if isinstance(patch, str) else None,
            extra={**without(run, (key, "instance_id", "error")), **({"events": others} if others else {})},
        )


def _are_events(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, list):
        first = first[0] if first else None
    if not isinstance(first, dict) or "role" in first:
        return False
    return "source" in first and bool({"action", "observation", "kind"} & set(first))


@dataclass(slots=True)
class _Answer:
    """The actions of one response of the model and what came back, while events come in."""

    said: list[Event]
    seen: list[Event] = field(default_factory=list)


def _turns(history: list[Any], where: str) -> tuple[list[Turn], list[dict[str, Any]]]:
    places: list[Turn | _Answer] = []
    asked: dict[tuple[str, str | None], _Answer] = {}
    others: list[dict[str, Any]] = []
    # Old evaluation outputs pair each action with its observation.
    flat = [item for value in history for item in (value if isinstance(value, list) else [value])]
    for i, value in enumerate(flat):
        event = read_event(expect(value, dict, f"{where}[{i}]"), f"{where}[{i}]")
        last = places[-1] if places else None
        if event.kind == "answer":
            if isinstance(last, _Answer) and event.response is not None and event.response == last.said[0].response:
                last.said.append(event)
            else:
                last = _Answer([event])
                places.append(last)
            asked |= {("event", event.id): last, ("call", event.call_id): last}
        elif event.kind == "observation":
            answer = asked.get(("event", event.cause)) if event.cause else None
            answer = answer or (asked.get(("call", event.call_id)) if event.call_id else None)
            if answer is None and event.cause is None and isinstance(last, _Answer) and not last.seen:
                answer = last
            if answer is not None:
                answer.seen.append(event)
            else:
                places.append(Turn("user", event.text, extra={"event": dict(event.rest)}))
        elif event.kind == "other":
            others.append({"before_turn": len(places), "event": dict(event.rest)})
        else:
            places.append(Turn(event.kind, event.text, extra={"event": dict(event.rest)}))
    if not places:
        raise DocumentError(f"{where}: no message and no action among {len(flat)} events")
    return mark_never_executed([item if isinstance(item, Turn) else _turn(item, where) for item in places]), others


def _turn(answer: _Answer, where: str) -> Turn:
    calls = [event.call for event in answer.said if event.call is not None]
    extra: dict[str, Any] = {"events": [_lean(event.rest, answer.said[0].rest, i) for i, event in enumerate(answer.said)]}
    action = None
    if calls:
        action, rests = read_calls(calls, where)
        refused = next((event.refused for event in answer.said if event.refused), None)
        if action.error or refused:
            action = Action(error=action.error or refused)
            extra["tool_calls"] = calls
        elif any(rests) or not any(call.id for call in action.calls):
            extra[CALLS_REST] = rests
    texts = dict.fromkeys(event.text for event in answer.said if event.text)
    thoughts = [*(thought for event in answer.said for thought in event.reasoning), *texts]
    return Turn("agent", "\n".join(texts), join_thoughts(*thoughts), action, _observation(answer), extra=extra)


def _observation(answer: _Answer) -> Observation | None:
    seen = answer.seen
    if not seen:
        return None
    made = {event.call_id: event.rest.get("tool_call_metadata") for event in answer.said}
    rests = []
    for event in seen:
        metadata = event.rest.get("tool_call_metadata")
        repeated = metadata is not None and made.get(event.call_id) == metadata
        rests.append(without(event.rest, ("tool_call_metadata",) if repeated else ()))
    if len(seen) == 1 and len(answer.said) == 1:
        return Observation(seen[0].text, seen[0].output, seen[0].returncode, {"event": rests[0]})
    results = [
        {"length": len(event.text), **({"tool_call_id": event.call_id} if event.call_id else {}), "event": rest}
        for event, rest in zip(seen, rests, strict=True)
    ]
    return Observation("\n".join(event.text for event in seen), extra={RESULTS: results})


def _lean(rest: Mapping[str, Any], first: Mapping[str, Any], place: int) -> dict[str, Any]:
    """What an action's event holds, without the model's response that the first action of the same response already has."""
    metadata, known = rest.get("tool_call_metadata"), first.get("tool_call_metadata")
    if not place or not isinstance(metadata, dict) or not isinstance(known, dict):
        return dict(rest)
    repeated = metadata.get("model_response") == known.get("model_response")
    return {**rest, "tool_call_metadata": without(metadata, ("model_response",) if repeated else ())}
