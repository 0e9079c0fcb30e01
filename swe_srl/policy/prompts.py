"""What the policy is shown at a step, as chat messages and as token ids.

Invariant: a prompt is tokenised exactly once, by the tokenizer's own chat template, and its ids are what is sampled from and
trained on. Roles alternate: system, user, then (assistant, user) pairs, so that every chat template accepts them.

The context is the whole prefix, or the issue and the last n action–observation pairs; n = 2 is the setting of the paper's SWE
experiments (arXiv 2510.25992). Under a token budget (`max_prompt_tokens`) a prompt that does not fit is cut in the order of
`cuts`, and only as far as it takes; what was cut is told.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swe_srl.policy.format import function_of, render_action, render_answer
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step, Turn

_NO_OBSERVATION = "[no observation]"

_SYSTEM = """\
You fix a problem in a code repository, one tool call at a time. After each call you are shown what it returned.

Answer in exactly this form, whatever other form the text below may ask for:
<think>
why this is the right next step
</think>
<function=NAME>
<parameter=KEY>VALUE</parameter>
</function>

Think first, then call exactly one tool once, and write nothing after it. VALUE is taken verbatim, without quoting.

Tools (? marks parameters that may be left out):
{tools}"""


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """How much of a trajectory the policy is shown."""

    last_pairs: int | None = 2
    """Action–observation pairs kept, counted from the end; None keeps the full prefix."""
    max_observation_chars: int = 1000
    """Longer observations keep this many characters, half from the head and half from the tail (the head has the odd one)."""
    tool_descriptions: bool = True
    """Describe every tool and parameter; False lists the signatures alone, for small models and contexts."""
    max_prompt_tokens: int | None = None
    """Longest prompt; a longer one is cut in the order of `cuts` until it fits."""
    shorten_observations_to: int | None = None
    """Characters to which observations are cut, oldest first, before any pair is left out; None leaves out pairs at once."""

    def __post_init__(self) -> None:
        for name in ("last_pairs", "max_observation_chars", "max_prompt_tokens", "shorten_observations_to"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} must not be negative, and is {value}")


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a step's window its prompt shows."""

    pairs: int | None
    """Action–observation pairs kept, counted from the end; None keeps the full prefix."""
    shortened: int = 0
    """How many observations and messages of these, the oldest, are cut to `shorten_observations_to`."""


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that keeps its budget."""

    ids: Sequence[int]
    left_out: int
    """Pairs of the window that the budget cost."""
    shortened: int
    """Observations and messages in the prompt that the budget held to `shorten_observations_to`."""


class PromptTooLongError(ValueError):
    """A step's prompt exceeds `max_prompt_tokens` even without any action–observation pair."""


def render_messages(
    step: Step, tools: Sequence[Mapping[str, Any]], options: PromptOptions, cut: Cut | None = None
) -> list[dict[str, str]]:
    """The chat messages of a step's prompt: system, problem, then the window of turns before it.

    The system message is this project's: the recorded one describes another answer format. The problem is the first user
    message, whole. The window starts at the n-th last agent turn (n = `cut.pairs`, `last_pairs` without a cut); in it

    - an agent turn is written as `render_answer` writes it, or the action alone where the source holds no thought; a malformed
      turn, one without an action and one that the format cannot hold stay as the agent wrote them;
    - observations and other messages are cut to `max_observation_chars`, the first `cut.shortened` of them to
      `shorten_observations_to`;
    - consecutive user messages are joined by an empty line, and a missing observation is said to be missing.
    """
    problem, window = _problem_and_window(step, options.last_pairs if cut is None else cut.pairs)
    write = _describe if options.tool_descriptions else _signature
    system = _SYSTEM.format(tools="\n".join(write(function_of(tool)) for tool in tools))
    messages = [{"role": "system", "content": system}, {"role": "user", "content": problem}]
    for role, content in _window_messages(window, options, 0 if cut is None else cut.shortened):
        previous = messages[-1]
        if role == "user" and previous["role"] == "user":
            previous["content"] += "\n\n" + content
            continue
        if role == "assistant" and previous["role"] == "assistant":
            messages.append({"role": "user", "content": _NO_OBSERVATION})
        messages.append({"role": role, "content": content})
    if messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": _NO_OBSERVATION})
    return messages


def cuts(step: Step, options: PromptOptions) -> list[Cut]:
    """How a step's prompt may be cut, from the whole window to the problem alone; each cut is no longer than the one before.

    1. With `shorten_observations_to`, observations and messages of the window are shortened to it one by one, oldest first.
    2. Pairs are left out one by one, oldest first; what is left stays shortened.
    """
    _, window = _problem_and_window(step, options.last_pairs)
    texts = 0 if options.shorten_observations_to is None else _texts(window)
    return [Cut(options.last_pairs, i) for i in range(texts + 1)] + [Cut(n, texts) for n in reversed(range(_pairs(window)))]


def encode_prompt(messages: Sequence[Mapping[str, str]], tokenizer: Any) -> list[int]:
    """Token ids of a prompt, ending where the answer begins. The chat template alone writes special tokens, BOS included."""
    ids: list[int] = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def encode_step(step: Step, tools: Sequence[Mapping[str, Any]], options: PromptOptions, tokenizer: Any) -> list[int]:
    """Token ids of a step's prompt, at most `max_prompt_tokens`; see `fit_prompt`. Many steps: `swe_srl.policy.encoding`."""
    return list(fit_prompt(step, tools, options, lambda messages: encode_prompt(messages, tokenizer)).ids)


def fit_prompt(
    step: Step,
    tools: Sequence[Mapping[str, Any]],
    options: PromptOptions,
    encode: Callable[[list[dict[str, str]]], Sequence[int]],
) -> FittedPrompt:
    """A step's prompt under the first of `cuts` whose ids, by `encode`, are at most `max_prompt_tokens`.

    Cuts are searched by halving, because each is no longer than the one before. Raises PromptTooLongError where not even the
    problem alone fits.
    """
    ids = encode(render_messages(step, tools, options))
    limit = options.max_prompt_tokens
    if limit is None or len(ids) <= limit:
        return FittedPrompt(ids, 0, 0)

    def encode_cut(cut: Cut) -> Sequence[int]:
        return encode(render_messages(step, tools, options, cut))

    possible = cuts(step, options)
    found = bisect_left(possible, True, lo=1, key=lambda cut: len(encode_cut(cut)) <= limit)
    if found == len(possible):
        raise PromptTooLongError(
            f"{step.id}: the prompt has {len(encode_cut(possible[-1]))} tokens without any action–observation pair, "
            f"more than max_prompt_tokens = {limit}"
        )
    cut = possible[found]
    (_, window), (_, shown) = (_problem_and_window(step, pairs) for pairs in (options.last_pairs, cut.pairs))
    return FittedPrompt(encode_cut(cut), _pairs(window) - _pairs(shown), min(cut.shortened, _texts(shown)))


def encode_answer(thought: str, action: Action, tokenizer: Any) -> list[int]:
    """Token ids of a supervised target: the answer, then the end-of-turn token as the model would generate it.

    Text that looks like a special token (`<filename>`, say) is encoded as the plain text it is. Raises ValueError for what
    `render_answer` refuses and for an action that is not exactly one call, since such an answer is invalid.
    """
    _ = action.call
    text = render_answer(thought, action)
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, end_of_turn_id(tokenizer)]


def end_of_turn_id(tokenizer: Any) -> int:
    """The id that ends the assistant's message in the tokenizer's chat template; the EOS where the template writes none.

    A base model's tokenizer often has an EOS that ends the document and is not the one its chat template ends turns with.
    """
    mark = "0000"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}, {"role": "assistant", "content": mark}], tokenize=False
    )
    special = set(tokenizer.added_tokens_decoder) | set(tokenizer.all_special_ids)
    ids: list[int] = tokenizer(text.rsplit(mark, 1)[-1], add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in special), tokenizer.eos_token_id)


def truncate(text: str, limit: int) -> str:
    """Keep `limit` characters of a longer text, half from its head and half from its tail, around a line on what is gone."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    head = limit - tail
    return f"{text[:head]}\n[... {len(text) - limit} characters left out ...]\n{text[len(text) - tail :]}"


def _problem_index(context: Sequence[Turn]) -> int | None:
    """Where the problem stands: the first user message that is no demonstration, else the first of any kind."""
    users = [i for i, turn in enumerate(context) if turn.role == "user"]
    return next((i for i in users if not context[i].context_only), users[0] if users else None)


def _problem_and_window(step: Step, pairs: int | None) -> tuple[str, Sequence[Turn]]:
    context = step.context
    start = _problem_index(context)
    problem = context[start].text if start is not None else step.trajectory.problem
    return problem, context[_window_start(context, (start if start is not None else -1) + 1, pairs) :]


def _window_start(context: Sequence[Turn], first: int, last_pairs: int | None) -> int:
    if last_pairs is None:
        return first
    agents = [i for i in range(first, len(context)) if context[i].role == "agent"]
    if last_pairs == 0:
        return len(context)
    return agents[-last_pairs] if len(agents) >= last_pairs else first


def _window_messages(window: Sequence[Turn], options: PromptOptions, shortened: int) -> Iterator[tuple[str, str]]:
    texts = 0
    for turn in window:
        if turn.role == "agent":
            yield "assistant", _agent_message(turn)
        text = _text_of(turn)
        if text is not None:
            shown = truncate(text, options.max_observation_chars)
            if texts < shortened and options.shorten_observations_to is not None:
                # The line on what is gone has a length of its own: a text hardly over the limit is shorter as it was.
                shown = min(shown, truncate(text, options.shorten_observations_to), key=len)
            texts += 1
            yield "user", shown


def _text_of(turn: Turn) -> str | None:
    """What the policy reads of a turn as the user's words: a message, or the observation of an agent's turn."""
    if turn.role != "agent":
        return turn.text
    return None if turn.observation is None else turn.observation.text


def _texts(window: Sequence[Turn]) -> int:
    return sum(_text_of(turn) is not None for turn in window)


def _pairs(window: Sequence[Turn]) -> int:
    return sum(turn.role == "agent" for turn in window)


def _agent_message(turn: Turn) -> str:
    if turn.action is not None and turn.action.calls:
        try:
            return render_answer(turn.thought, turn.action) if turn.thought.strip() else render_action(turn.action)
        except ValueError:
            # Fall through: what the format cannot hold is shown as it was written.
            pass
    return turn.text or turn.thought


def _describe(function: Mapping[str, Any]) -> str:
    """One tool on one line, then its parameters with what is said about them."""
    schema = function.get("parameters") or {}
    required = set(schema.get("required") or ())
    lines = [f"- {function['name']}: {_one_line(function.get('description'))}".rstrip(": ")]
    for key, value in (schema.get("properties") or {}).items():
        kind = "one of " + ", ".join(map(str, value["enum"])) if "enum" in value else _type_name(value)
        about = _one_line(value.get("description"))
        lines.append(f"  - {key}{'' if key in required else '?'} ({kind})" + (f": {about}" if about else ""))
    return "\n".join(lines)


def _signature(function: Mapping[str, Any]) -> str:
    schema = function.get("parameters") or {}
    required = set(schema.get("required") or ())
    parameters = (key if key in required else f"{key}?" for key in schema.get("properties") or {})
    return f"- {function['name']}({', '.join(parameters)})"


def _type_name(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type", "string")
    name = declared if isinstance(declared, str) else " or ".join(declared)
    items = schema.get("items")
    return f"{name} of {_type_name(items)}" if name == "array" and isinstance(items, Mapping) else name


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
