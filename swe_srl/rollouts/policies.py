"""Who answers: a checkpoint through a sampler, an OpenAI-compatible endpoint, or a script.

Invariant: all of them are shown the same messages, those that training renders (`swe_srl.policy.prompts`). Threads share a
policy.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from swe_srl.errors import UserError
from swe_srl.policy.format import THINK_CLOSE, THINK_OPEN, render_answer
from swe_srl.policy.prompts import PromptOptions, PromptTooLongError, encode_prompt, encode_step, render_messages
from swe_srl.rollouts.agent import ContextFull, PolicyFault, Reply
from swe_srl.rollouts.batching import Batcher
from swe_srl.trajectories.model import Sampled, Step, Trajectory

Tools = Sequence[Mapping[str, Any]]

# As servers say it: OpenAI and vLLM, SGLang, llama.cpp, TGI.
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|model's context length|exceed_context_size|available context size"
    r"|inputs` tokens \+ `max_new_tokens`"
)


class SampledPolicy:
    """A model through a `Batcher`: token ids in, token ids and log-probabilities out."""

    def __init__(self, name: str, batcher: Batcher, tokenizer: Any, options: PromptOptions) -> None:
        self.name = name
        self._batcher, self._tokenizer, self._options = batcher, tokenizer, options
        self._lock = threading.Lock()  # fast tokenizers must not be entered by two threads

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        try:
            with self._lock:
                ids = encode_step(step, tools, self._options, self._tokenizer)
        except PromptTooLongError as error:
            raise ContextFull(str(error)) from error
        return self._sampled(ids)

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """See `Writer.ask`."""
        with self._lock:
            ids = encode_prompt(messages, self._tokenizer)
        most = self._options.max_prompt_tokens
        if most is not None and len(ids) > most:
            raise ContextFull(f"the prompt has {len(ids)} tokens, and {most} fit beside an answer")
        return self._sampled(ids)

    def _sampled(self, ids: list[int]) -> Reply:
        sample = self._batcher.sample(ids)
        sampled = Sampled(len(ids), len(sample.token_ids), tuple(ids), sample.token_ids, sample.logprobs)
        return Reply(sample.text, sample.finish, sampled)

    def close(self) -> None:
        """See `Policy.close`."""
        self._batcher.close()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an OpenAI-compatible chat endpoint is, and how it is asked."""

    url: str
    """Up to and with the version, for example http://localhost:8000/v1."""
    model: str
    api_key: str | None = field(default=None, repr=False)
    temperature: float = 1.0
    max_tokens: int = 2048
    """Longest answer, in tokens."""
    seconds: float = 300.0
    """To wait for an answer."""
    retries: int = 3
    """How often a request is made again that failed on the way, timed out, or was answered 408, 409, 429 or 5xx."""
    backoff: float = 1.0
    """Seconds before the second retry; each further one waits twice as long. A server's Retry-After counts up to a minute."""


class EndpointPolicy:
    """A model behind the chat completions protocol. It tells no token ids, so its rollouts carry counts alone."""

    def __init__(self, endpoint: Endpoint, options: PromptOptions) -> None:
        """Raises UserError for a token budget on prompts: there is no tokenizer to count with."""
        if options.max_prompt_tokens is not None:
            raise UserError(
                "prompt.max_prompt_tokens needs the model's tokenizer, which an endpoint does not tell: leave it out"
            )
        self.name = endpoint.model
        self._endpoint, self._options = endpoint, options
        self._url = f"{endpoint.url.rstrip('/')}/chat/completions"
        self._session = _session(endpoint)
        self._waiting: set[Future[Reply]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """It travels as what it was made of, its API key with it."""
        return EndpointPolicy, (self._endpoint, self._options)

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        return self.ask(render_messages(step, tools, self._options))

    def ask(self, messages: Sequence[dict[str, str]]) -> Reply:
        """See `Writer.ask`."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._closed:
                raise CancelledError
            self._waiting.add(future)
        # In a thread of its own, because nothing ends a request that waits for its server; the one who asks need not wait on.
        threading.Thread(target=self._ask, args=(messages, future), daemon=True).start()
        try:
            return future.result()
        finally:
            with self._lock:
                self._waiting.discard(future)

    def close(self) -> None:
        """See `Policy.close`; the answer to a request that is under way is dropped."""
        with self._lock:
            self._closed = True
            for future in self._waiting:
                future.cancel()

    def _ask(self, messages: Sequence[dict[str, str]], future: Future[Reply]) -> None:
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            try:
                future.set_result(self._request(messages))
            except Exception as error:
                future.set_exception(error)

    def _request(self, messages: Sequence[dict[str, str]]) -> Reply:
        end = self._endpoint
        body = {"model": end.model, "messages": list(messages), "temperature": end.temperature, "max_tokens": end.max_tokens}
        headers = {"Authorization": f"Bearer {end.api_key}"} if end.api_key else {}
        try:
            answer = self._session.post(self._url, json=body, headers=headers, timeout=end.seconds)
        except requests.RequestException as error:
            raise PolicyFault(f"{self._url}: {_root(error)}") from error
        if answer.status_code != 200:
            if answer.status_code == 413 or (answer.status_code < 500 and _TOO_LONG.search(answer.text)):
                raise ContextFull(answer.text[:200])
            raise PolicyFault(f"{self._url}: status {answer.status_code}: {answer.text[:300].strip()}")
        try:
            return _read(answer.json())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise PolicyFault(f"{self._url}: not a chat completion ({error!r}): {answer.text[:200].strip()}") from error


class ScriptedPolicy:
    """Plays the actions of recorded runs, step by step: a check of tasks, images and grading that needs no model.

    Where a task has no run, or the run is over, the answer is empty.
    """

    name = "expert"

    def __init__(self, experts: Sequence[Trajectory]) -> None:
        """Of several runs of one task the first is played."""
        self._experts: dict[str, list[Step]] = {}
        for expert in experts:
            self._experts.setdefault(expert.task_id, list(expert.steps()))

    def reply(self, step: Step, tools: Tools) -> Reply:
        """See `Policy.reply`."""
        k = sum(bool(turn.action and turn.action.calls) for turn in step.context)
        steps = self._experts.get(step.trajectory.task_id, [])
        if k >= len(steps):
            return Reply("", "stop", Sampled(0, 0))
        try:
            text = render_answer(steps[k].turn.thought or "As recorded.", steps[k].action)
        except ValueError as error:
            raise PolicyFault(f"{steps[k].id}: the recorded action cannot be written as an answer: {error}") from error
        return Reply(text, "stop", Sampled(0, 0))

    def close(self) -> None:
        """See `Policy.close`."""


def _session(endpoint: Endpoint) -> requests.Session:
    """One for all threads: its connections are pooled under a lock, and it takes no cookies, which are not."""
    session = requests.Session()
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    retry = Retry(
        endpoint.retries,
        backoff_factor=endpoint.backoff / 2,
        status_forcelist=(408, 409, 429, 500, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
        retry_after_max=60,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=64))
    return session


def _read(answer: Any) -> Reply:
    choice = answer["choices"][0]
    message, usage = choice["message"], answer["usage"]
    text = message.get("content") or ""
    # Servers that take the reasoning apart send it beside the answer; the tags are what the answer format has.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and THINK_OPEN not in text:
        text = f"{THINK_OPEN}\n{reasoning.strip()}\n{THINK_CLOSE}\n{text}"
    counts = Sampled(int(usage["prompt_tokens"]), int(usage["completion_tokens"]))
    return Reply(str(text), "length" if choice.get("finish_reason") == "length" else "stop", counts)


def _root(error: BaseException) -> str:
    """The first cause, which says what happened rather than how often."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return str(reason or error)
