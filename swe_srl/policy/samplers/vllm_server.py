"""A sampler on a vLLM server that somebody else has started; see docs/samplers.md for the command.

Invariant: as `swe_srl.policy.samplers.vllm`, whatever weights the server was started with: the trainer's are sent before the
first sample. A server that would answer otherwise, because its command lacks an option, is refused when the run starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests
import torch

from swe_srl.config import VllmSection
from swe_srl.errors import UserError
from swe_srl.policy.base import Sample, SamplerLost, SamplingOptions
from swe_srl.policy.samplers.rules import check_lengths, end_ids, finished_sample
from swe_srl.policy.samplers.vllm_requests import request, stopped, trajectory_order
from swe_srl.policy.samplers.weights import handover, save_served

COMMAND = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --logprobs-mode processed_logprobs "
    "--worker-extension-cls swe_srl.policy.samplers.vllm_worker.TakesWeights"
)
"""How the server must be started at least."""
_CONNECTIONS = 64
_TIMEOUT_S = (10.0, 3600.0)
"""To connect, and to wait for an answer."""


class VllmServerSampler:
    """Implements `swe_srl.policy.base.Sampler` over HTTP."""

    def __init__(self, model: Any, tokenizer: Any, section: VllmSection) -> None:
        """Look at the server. Raises UserError where it does not answer or does not offer what is needed."""
        assert section.url is not None, "validated"
        self._model, self._tokenizer = model, tokenizer
        self._url = section.url.rstrip("/")
        self._dtype = getattr(torch, section.dtype)
        self._weights_folder = section.weights_folder
        self._ends = end_ids(model, tokenizer)
        self._updated = True
        self._checkpoint: Path | None = None
        self._session = requests.Session()
        self._session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS))
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS))
        served = self._call("GET", "/v1/models")["data"][0]
        self._name, self._context = served["id"], served.get("max_model_len")
        self._check_offers()

    def sample(self, prompts: Sequence[Sequence[int]], options: SamplingOptions) -> list[list[Sample]]:
        """As `VllmSampler.sample`."""
        check_lengths(prompts, options.max_tokens, self._context)
        if not prompts:
            return []
        self.take_weights()
        order = trajectory_order(prompts)
        with ThreadPoolExecutor(min(_CONNECTIONS, len(prompts))) as pool:
            answers = pool.map(lambda i: self._complete(prompts[i], request(options, i, self._ends)), order)
            groups = dict(zip(order, answers, strict=True))
        return [
            [
                finished_sample(self._tokenizer, ids, logprobs, stopped=stopped(reason), stop=options.stop)
                for ids, logprobs, reason in groups[i]
            ]
            for i in range(len(prompts))
        ]

    def update_weights(self, checkpoint: Path | None) -> None:
        """Serve a checkpoint's weights, or with None the model's, from the next `sample` on. Costs nothing until then."""
        self._updated, self._checkpoint = True, checkpoint

    def report(self) -> dict[str, Any]:
        """Nothing to say: how the server shares out its requests is its own."""
        return {}

    def close(self) -> None:
        """Close the connections. The server goes on."""
        self._session.close()

    def take_weights(self) -> None:
        """See `Sampler`."""
        if not self._updated:
            return
        if self._checkpoint is not None:
            self._reload(self._checkpoint)
        else:
            with handover(self._weights_folder) as folder:
                save_served(self._model, Path(folder), self._dtype)
                # The server may run as somebody else.
                Path(folder).chmod(0o755)
                self._reload(Path(folder))
        self._updated = False

    def _reload(self, folder: Path) -> None:
        self._call("POST", "/collective_rpc", {"method": "take_weights", "kwargs": {"folder": str(folder.resolve())}})
        if not self._call("POST", "/reset_prefix_cache")["success"]:
            raise UserError(f"{self._url}: the prefix cache could not be emptied; is the server used by others as well?")

    def _complete(self, prompt: Sequence[int], fields: Mapping[str, Any]) -> list[tuple[list[int], list[float], str]]:
        """The ids, log-probabilities and finish reason of a prompt's samples."""
        body = {"model": self._name, "prompt": list(prompt), "return_token_ids": True, **fields}
        choices = sorted(self._call("POST", "/v1/completions", body)["choices"], key=lambda choice: int(choice["index"]))
        return [(choice["token_ids"], choice["logprobs"]["token_logprobs"], str(choice["finish_reason"])) for choice in choices]

    def _check_offers(self) -> None:
        """Raise UserError unless weights can be updated and log-probabilities are taken at the sampling temperature."""
        if self._session.post(f"{self._url}/reset_prefix_cache", timeout=_TIMEOUT_S).status_code == requests.codes.not_found:
            raise UserError(f"{self._url}: offers no update of weights; start it with {COMMAND}")
        prompt = [max(self._ends)]
        # The likeliest token is less likely at a higher temperature.
        cool, hot = (
            request(SamplingOptions(n=1, temperature=temperature, max_tokens=1), 0, ()) | {"logprobs": 1}
            for temperature in (0.5, 2.0)
        )
        tops = [max(self._top_logprobs(prompt, fields).values()) for fields in (cool, hot)]
        if abs(tops[0] - tops[1]) < 1e-3:
            raise UserError(f"{self._url}: log-probabilities do not follow the temperature; start it with {COMMAND}")

    def _top_logprobs(self, prompt: Sequence[int], fields: Mapping[str, Any]) -> dict[str, float]:
        body = {"model": self._name, "prompt": list(prompt), **fields}
        top: dict[str, float] = self._call("POST", "/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]
        return top

    def _call(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that the server answers. Raises SamplerLost where it does not answer or refuses."""
        try:
            response = self._session.request(verb, self._url + path, json=body, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise SamplerLost(f"{self._url}: no vLLM server answers there ({error}); start one with {COMMAND}") from error
        if not response.ok:
            raise SamplerLost(f"{self._url}{path}: the server answered {response.status_code}: {response.text[:500]}")
        return response.json() if response.content else None
