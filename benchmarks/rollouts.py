"""How many rollouts an hour there are, how busy the sampler is, and what a turn costs beside sampling and commands.

`throughput`: rollouts of the shipped tasks with 1, 2, 4 and 8 at a time over one sampler. At each step the model is shown the
prompt and samples an answer of `--answer-tokens` at most; what is then done is what the recorded expert did there, so that
every row has the same prompts, commands and tests, whatever the model is worth. `overhead ms` is what a turn takes that neither
the sampler nor a command does, with one rollout at a time: rendering, tokenising, parsing, handing over.

`beside mini-swe-agent`: both loops in the same image against an endpoint that answers at once with a command that does nothing,
N turns in one run. A turn is everything: the prompt, the request, the command, the observation. `--peers` names a Python that
has mini-swe-agent 2; without it that row says so.

    python benchmarks/rollouts.py --peers peers/bin/python --json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from process import machine
from tables import print_table, say

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.environments.docker import DockerSandbox, connect
from swe_srl.environments.image import build_image, build_images
from swe_srl.environments.sandbox import Sandbox
from swe_srl.environments.task import Task, load_tasks
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.prompts import PromptOptions
from swe_srl.recipes import load_recipe
from swe_srl.rollouts.agent import Acted, AgentConfig, Reply, roll_out
from swe_srl.rollouts.batching import Batcher
from swe_srl.rollouts.policies import Endpoint, EndpointPolicy, SampledPolicy, ScriptedPolicy
from swe_srl.rollouts.run import RolloutOptions, run_rollouts
from swe_srl.rollouts.starts import Start, StartRule, starts
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step, Trajectory, Turn

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
ENGINES = {
    "transformers": SamplingSection(),
    "vllm": SamplingSection(engine="vllm", vllm=VllmSection(compile=False, max_model_len=4096, kv_cache_gib=2.0)),
}
MINI_SWE_AGENT = """
import json, os, sys, time
os.environ.update(MSWEA_COST_TRACKING="ignore_errors", MSWEA_SILENT_STARTUP="1", LITELLM_LOCAL_MODEL_COST_MAP="True")
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel
image, url, result = sys.argv[1:]
model = LitellmTextbasedModel(
    model_name="openai/scripted", model_kwargs={"api_base": url, "api_key": "none"}, cost_tracking="ignore_errors"
)
environment = DockerEnvironment(image=image, cwd="/testbed", interpreter=["bash", "-c"])
agent = DefaultAgent(model, environment, system_template="Fix it.", instance_template="{{task}}")
begun = time.perf_counter()
agent.run("It fails.")
seconds = time.perf_counter() - begun
open(result, "w").write(json.dumps({"seconds": seconds, "turns": agent.n_calls}))
environment.cleanup()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart.toml", help="Whose model and prompt are used.")
    parser.add_argument("--model", help="Another model, or its folder.")
    parser.add_argument("--engine", choices=ENGINES, default="vllm")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--answer-tokens", type=int, default=160)
    parser.add_argument("--attempts", type=int, default=2, help="Rollouts of each shipped task, a row.")
    parser.add_argument("--turns", type=int, default=100, help="Of the comparison with mini-swe-agent.")
    parser.add_argument("--peers", type=Path, help="a Python with mini-swe-agent 2")
    parser.add_argument(
        "--quick", action="store_true", help="2 tasks, one rollout each, 16 tokens an answer, 1 and 2 at a time."
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tasks = load_tasks([Path("environments")]).tasks
    if options.quick:
        tasks = {name: tasks[name] for name in sorted(tasks)[::6]}
        options.workers, options.attempts, options.answer_tokens, options.turns = [1, 2], 1, 16, 30
    report = {
        "machine": machine(),
        "throughput": throughput(tasks, options),
        "beside mini-swe-agent": list(beside(next(iter(tasks.values())), options)),
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for title in ("throughput", "beside mini-swe-agent"):
        print_table(title, report[title])


class Recites:
    """Samples an answer to what a policy is shown, and acts as the expert did."""

    def __init__(self, sampled: SampledPolicy, expert: ScriptedPolicy) -> None:
        self.name, self._sampled, self._expert = "recites", sampled, expert

    def reply(self, step: Step, tools: Sequence[Mapping[str, Any]]) -> Reply:
        reply = self._sampled.reply(step, tools)
        return replace(self._expert.reply(step, tools), sampled=reply.sampled)

    def close(self) -> None:
        self._sampled.close()


@dataclass
class Clock:
    """What rollouts took from their first prompt to their last observation."""

    seconds: float = 0.0
    commands: float = 0.0
    turns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def act(self, policy: Any, sandbox: Sandbox, start: Start, config: Any, on_answer: Any) -> Acted:
        begun = time.perf_counter()
        acted = roll_out(policy, sandbox, start.trajectory, config, on_answer)
        with self._lock:
            self.seconds += time.perf_counter() - begun
            self.commands += acted.command_seconds
            self.turns += sum(turn.role == "agent" for turn in acted.trajectory.turns)
        return acted


def throughput(tasks: Mapping[str, Task], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of rollouts at a time."""
    from swe_srl.policy.model import load_policy
    from swe_srl.policy.samplers.select import open_sampler
    from swe_srl.training.data import prompt_options

    recipe = load_recipe(options.recipe)
    experts = load(["trajectories"])
    begin, _ = starts(StartRule("issue"), tasks, [], None, None)
    build_images(connect(), list(tasks.values()), say)
    model, tokenizer = load_policy(options.model or recipe.model.name)
    sampling = SamplingOptions(temperature=1.0, max_tokens=options.answer_tokens)
    rows = []
    with closing(open_sampler(ENGINES[options.engine], model, tokenizer)) as sampler:
        with Batcher(sampler, sampling) as batcher:  # what comes but once
            batcher.sample(tokenizer("Hello.")["input_ids"])
        for workers in options.workers:
            chosen = RolloutOptions(AgentConfig(max_steps=100), options.attempts, workers)
            clock = Clock()
            with Batcher(sampler, sampling) as batcher, tempfile.TemporaryDirectory() as out:
                policy = Recites(SampledPolicy("m", batcher, tokenizer, prompt_options(recipe.prompt)), ScriptedPolicy(experts))
                begun = time.perf_counter()
                report = run_rollouts(begin, tasks, policy, Path(out), {}, chosen, say, clock.act)
                seconds = time.perf_counter() - begun
            if report.failed or not all(run.resolved for run in report.rollouts):
                raise SystemExit(f"the experts did not resolve their tasks: {report.failed}")
            rows.append(_throughput_row(workers, len(report.rollouts), seconds, batcher, clock))
            say(json.dumps(rows[-1]))
    return rows


def _throughput_row(workers: int, rollouts: int, seconds: float, batcher: Batcher, clock: Clock) -> dict[str, Any]:
    counts = batcher.counts
    row = {
        "at a time": workers,
        "rollouts": rollouts,
        "turns": clock.turns,
        "seconds": round(seconds, 1),
        "rollouts an hour": round(3600 * rollouts / seconds, 1),
        "sampler busy": round(counts.seconds / seconds, 3),
        "prompts a call": round(counts.prompts / counts.calls, 2),
        "command ms a turn": round(1e3 * clock.commands / clock.turns, 1),
    }
    if workers == 1:  # with several, sampling and the others' turns overlap
        row["overhead ms a turn"] = round(1e3 * (clock.seconds - counts.seconds - clock.commands) / clock.turns, 1)
    return row


def beside(task: Task, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Our loop and mini-swe-agent's, a row each."""
    client = connect()
    image = build_image(client, task, say).tag
    with _endpoint(options.turns, xml=True) as url, DockerSandbox.start(client, image) as sandbox:
        policy = EndpointPolicy(Endpoint(url, "scripted"), PromptOptions(last_pairs=None))
        start = Trajectory("t", "t", "mini-swe-agent", "atif", (Turn("user", "It fails."),))
        begun = time.perf_counter()
        acted = roll_out(policy, sandbox, start, AgentConfig(max_steps=options.turns + 1))
        seconds = time.perf_counter() - begun
    if acted.trajectory.exit_status != "submitted":
        raise SystemExit(f"ended as {acted.trajectory.exit_status}: {acted.error}")
    yield {
        **_turn_row("swe-srl", seconds, options.turns),
        "of it commands": round(1e3 * acted.command_seconds / options.turns, 1),
    }
    if options.peers is None:
        yield {"loop": "mini-swe-agent", "missing": "no --peers"}
        return
    with _endpoint(options.turns, xml=False) as url, tempfile.NamedTemporaryFile("r") as result:
        command = [str(options.peers), "-c", MINI_SWE_AGENT, image, url, result.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            yield {"loop": "mini-swe-agent", "missing": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
            return
        said = json.loads(result.read())
    yield _turn_row("mini-swe-agent", said["seconds"], said["turns"])


def _turn_row(name: str, seconds: float, turns: int) -> dict[str, Any]:
    return {"loop": name, "turns": turns, "ms a turn": round(1e3 * seconds / turns, 1)}


@contextmanager
def _endpoint(turns: int, *, xml: bool) -> Iterator[str]:
    """Answers at once: `true` until the last turn, which submits. In our answer format, or in mini-swe-agent's."""
    asked = iter(range(1, turns + 1))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            command = SUBMIT if next(asked, turns) == turns else "true"
            call = f"<function=bash>\n<parameter=command>{command}</parameter>\n</function>"
            text = f"<think>\nNext.\n</think>\n{call}" if xml else f"Next.\n\n```mswea_bash_command\n{command}\n```"
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
