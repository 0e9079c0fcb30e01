"""A server that would answer otherwise than a sampler must is refused when it is opened, with the command that would do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.samplers.select import open_sampler

Answer = tuple[int, dict[str, Any]]


def completion(logprob: float) -> Answer:
    return 200, {"choices": [{"index": 0, "logprobs": {"top_logprobs": [{"x": logprob, "y": -20.0}]}}]}


class Server:
    """Answers as vLLM does, by default as one that can be used."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/v1/models": lambda body: (200, {"data": [{"id": "policy", "max_model_len": 64}]}),
            "/reset_prefix_cache": lambda body: (200, {"success": True}),
            "/v1/completions": lambda body: completion(-1.0 / body["temperature"]),
            "/collective_rpc": lambda body: (200, {"results": [None]}),
        }
        self.asked: list[tuple[str, dict[str, Any]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                outer.asked.append((self.path, body))
                status, value = outer.answers.get(self.path, lambda body: (404, {"detail": "Not Found"}))(body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = answer

            def log_message(self, format: str, *args: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def opened(server: Server, model: Any, tokenizer: Any) -> Any:
    section = SamplingSection(engine="vllm-server", vllm=VllmSection(url=f"{server.url}/"))
    return open_sampler(section, model, tokenizer)


def test_without_the_development_endpoints(server: Server, model: Any, tokenizer: Any) -> None:
    del server.answers["/reset_prefix_cache"]
    with pytest.raises(UserError, match=rf"{server.url}: offers no update of weights; start it with VLLM_SERVER_DEV_MODE=1"):
        opened(server, model, tokenizer)


def test_with_logprobs_of_another_temperature(server: Server, model: Any, tokenizer: Any) -> None:
    server.answers["/v1/completions"] = lambda body: completion(-1.0)
    with pytest.raises(UserError, match=r"do not follow the temperature; start it with .* --logprobs-mode processed_logprobs"):
        opened(server, model, tokenizer)


def test_weights_that_the_server_does_not_take(server: Server, model: Any, tokenizer: Any) -> None:
    sampler = opened(server, model, tokenizer)
    server.answers["/collective_rpc"] = lambda body: (500, {"error": "no attribute 'take_weights'"})
    with pytest.raises(UserError, match=r"/collective_rpc: the server answered 500: .*take_weights"):
        sampler.sample([[5]], SamplingOptions(max_tokens=2))
    server.answers["/collective_rpc"] = lambda body: (200, {"results": [None]})
    server.answers["/reset_prefix_cache"] = lambda body: (200, {"success": False})
    with pytest.raises(UserError, match="the prefix cache could not be emptied"):
        sampler.sample([[5]], SamplingOptions(max_tokens=2))
    # The weights are still owed: they are sent again, and nothing was sampled with the old ones.
    assert [body.get("n") for path, body in server.asked if path == "/v1/completions"] == [1, 1]
    assert [path for path, _ in server.asked].count("/collective_rpc") == 2
    sampler.close()
