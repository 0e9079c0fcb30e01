"""The prompts of many steps as token ids, at the cost of the trajectory's length and not of its square.

Invariant: the ids of every step are those of `swe_srl.policy.prompts.encode_step`.

The prompts of a trajectory repeat each other. The chat template renders each of them whole, but the text is tokenised in
segments, and each segment once a trajectory. A segment begins at a special token of the template and ends before the next. A
tokenizer cuts its text at special tokens before it does anything else, so the ids of a text are those of its segments joined;
`segment_pattern` says which tokens are known to cut so. The longest prompt of each trajectory is also tokenised as a whole:
where the ids differ the trajectory is encoded step by step, with a warning. Where no token is known to cut, that is done
always. Steps share the segments' ids in memory as well.
"""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, pairwise
from typing import Any, overload

from swe_srl.policy.prompts import FittedPrompt, PromptOptions, PromptTooLongError, encode_prompt, fit_prompt
from swe_srl.trajectories.model import Step

_log = logging.getLogger(__name__)

Tools = Sequence[Mapping[str, Any]]
Messages = Sequence[Mapping[str, str]]
_PROBE = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]


class SharedIds(Sequence[int]):
    """Token ids in parts that other prompts hold as well: four bytes an id, once for all of them. Reads as the ids joined."""

    __slots__ = ("_length", "parts")

    def __init__(self, parts: Iterable[array[int]]) -> None:
        self.parts = tuple(parts)
        self._length = sum(map(len, self.parts))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self.parts)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        """Takes time in proportion to the length: to read many ids, iterate or make a list."""
        return list(self)[index]


class StepEncoder:
    """Encodes steps for one tokenizer and one context policy."""

    def __init__(self, tokenizer: Any, options: PromptOptions, tools_for: Callable[[Step], Tools]) -> None:
        self.options = options
        self._tokenizer, self._tools_for = tokenizer, tools_for
        self._pattern = segment_pattern(tokenizer)

    def encode(self, steps: Sequence[Step]) -> list[FittedPrompt | PromptTooLongError]:
        """One prompt a step, or why there is none, in the order of the steps.

        Work is shared between neighbouring steps of the same trajectory.
        """
        runs = groupby(steps, key=lambda step: id(step.trajectory))
        return [prompt for _, run in runs for prompt in self._encode_run(list(run))]

    def _encode_run(self, steps: Sequence[Step]) -> list[FittedPrompt | PromptTooLongError]:
        if self._pattern is None or len(steps) < 2:
            return self._encode_each(steps, self._plain)
        segments = _Segments(self._tokenizer, self._pattern)
        prompts = self._encode_each(steps, segments.encode)
        if segments.longest is None or list(segments.encode(segments.longest)) == encode_prompt(
            segments.longest, self._tokenizer
        ):
            return prompts
        _log.warning("this tokenizer does not cut texts at its template's special tokens; steps are encoded one by one, slower")
        self._pattern = None
        return self._encode_each(steps, self._plain)

    def _encode_each(
        self, steps: Sequence[Step], encode: Callable[[Messages], Sequence[int]]
    ) -> list[FittedPrompt | PromptTooLongError]:
        prompts: list[FittedPrompt | PromptTooLongError] = []
        for step in steps:
            try:
                prompts.append(fit_prompt(step, self._tools_for(step), self.options, encode))
            except PromptTooLongError as error:
                prompts.append(error)
        return prompts

    def _plain(self, messages: Messages) -> SharedIds:
        return SharedIds([array("i", encode_prompt(messages, self._tokenizer))])


class _Segments:
    """The segments of one trajectory's prompts that are tokenised already."""

    def __init__(self, tokenizer: Any, pattern: re.Pattern[str]) -> None:
        self._tokenizer, self._pattern = tokenizer, pattern
        self._ids: dict[str, array[int]] = {}
        self.longest: Messages | None = None
        """The messages of the longest prompt so far."""
        self._length = -1

    def encode(self, messages: Messages) -> SharedIds:
        text: str = self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
        )
        starts = [match.start() for match in self._pattern.finditer(text)]
        bounds = sorted({0, *starts, len(text)})
        ids = SharedIds([self._tokenise(text[start:end]) for start, end in pairwise(bounds)])
        if len(ids) > self._length:
            self._length, self.longest = len(ids), messages
        return ids

    def _tokenise(self, segment: str) -> array[int]:
        ids = self._ids.get(segment)
        if ids is None:
            ids = self._ids[segment] = array("i", self._tokenizer(segment, add_special_tokens=False)["input_ids"])
        return ids


def segment_pattern(tokenizer: Any) -> re.Pattern[str] | None:
    """Matches the special tokens of the chat template at which every text is cut; None where none is known to be so.

    Such a token is looked for in the text as it stands (not normalised), takes no white space beside it, need not be a word of
    its own, and no other added token can overlap it.
    """
    if not getattr(tokenizer, "is_fast", False):
        return None
    added = {token.content: token for token in tokenizer.added_tokens_decoder.values()}
    rendered = tokenizer.apply_chat_template(_PROBE, add_generation_prompt=True, tokenize=False)
    cutting = [
        content
        for content, token in added.items()
        if token.special
        and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        and content in rendered
        and not any(_overlap(content, other) for other in added if other != content)
    ]
    return re.compile("|".join(map(re.escape, cutting))) if cutting else None


def _overlap(token: str, other: str) -> bool:
    """Whether an occurrence of `other` can cover part of an occurrence of `token`, beginning no later or running beyond it."""

    def runs_into(a: str, b: str) -> bool:
        return any(b.startswith(a[start:]) for start in range(1, len(a)))

    return token in other or runs_into(token, other) or runs_into(other, token)
