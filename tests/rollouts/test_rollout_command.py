"""Rollouts as a user makes them: a process with an endpoint, a kill, the same command again, and the evaluation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from saying import says
from serving import Answer, completion, serving

from swe_srl.environments.task import load_tasks
from swe_srl.errors import UserError
from swe_srl.policy.model import load_tokenizer
from swe_srl.policy.prompts import PromptOptions, encode_step
from swe_srl.rollouts.agent import AgentConfig
from swe_srl.rollouts.command import PolicyChoice, StartChoice, fit_context, open_policy, rollout_command
from swe_srl.rollouts.folder import ROLLOUTS
from swe_srl.rollouts.record import answers, without_tokens
from swe_srl.rollouts.run import RolloutOptions
from swe_srl.rollouts.starts import StartRule
from swe_srl.scaffolds import get_scaffold
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Step

pytestmark = pytest.mark.xdist_group("shipped")
ROOT = Path(__file__).parents[2]
TASK = ROOT / "environments" / "ttlbox-expiry-edge"
NAME = TASK.name
SUBMIT = "<think>\nDone.\n</think>\n<function=submit>\n</function>"


def _start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "swe_srl.cli", *map(str, arguments)]
    piped: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OPENAI_API_KEY": "key"}, text=True, **piped)


def _run(*arguments: str | Path) -> tuple[int, Any, str]:
    process = _start(*arguments)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out) if out else None, err


def test_a_run_that_was_killed_goes_on_and_is_evaluated(client: DockerClient, tmp_path: Path) -> None:
    held, asked = threading.Event(), threading.Event()

    def third() -> Answer:
        asked.set()
        held.wait(60)
        return completion(says("true"))

    out = tmp_path / "run"
    with serving(completion(SUBMIT), completion(says("ls")), third, completion(SUBMIT)) as server:
        command = ["rollout", TASK, "--model", "qwen", "--endpoint", server.url, "--out", out, "--attempts", "2", "--json"]
        command += ["--workers", "1"]
        process = _start(*command)
        assert asked.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        held.set()
        [first] = load([out / ROLLOUTS])
        assert (first.id, first.exit_status) == (f"{NAME}-rollout-0", "submitted")
        status, report, err = _run(*command)
    assert status == 0, err
    assert [(row["id"], row["status"], row["answers"]) for row in report["rollouts"]] == [
        (f"{NAME}-rollout-0", "submitted", 1),
        (f"{NAME}-rollout-1", "submitted", 1),
    ]
    assert "1 of 2 rollouts are in" in err
    assert {request["key"] for request in server.requests} == {"Bearer key"}
    status, imported, err = _run("import", out / ROLLOUTS, "--to", tmp_path / "again.jsonl", "--json")
    assert (status, imported["kept"], imported["bad"]) == (0, 2, 0)
    predictions = tmp_path / "preds.json"
    status, found, err = _run("evaluate", "tasks", out, "--k", "1", "--k", "2", "--predictions", predictions, "--json")
    assert (status, found["tasks"], found["rollouts"]) == (0, 1, 2)
    assert found["resolved_rate"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert list(found["pass_at"]) == ["1", "2"]
    assert json.loads(predictions.read_text()) == {NAME: {"instance_id": NAME, "model_name_or_path": "qwen", "model_patch": ""}}


def test_an_endpoint_that_fails_is_reported_and_the_status_says_so(client: DockerClient, tmp_path: Path) -> None:
    with serving((401, b"no key")) as server:
        status, report, err = _run("rollout", TASK, "--model", "q", "--endpoint", server.url, "--out", tmp_path, "--json")
    assert (status, report["rollouts"]) == (1, [])
    assert f"error: {NAME}-rollout-0: http://" in err
    assert "status 401: no key" in err
    status, found, err = _run("evaluate", "tasks", tmp_path, "--json")
    assert (status, found["unfinished"], found["resolved_rate"]) == (1, 1, None)
    assert f"error: {NAME}-rollout-0: the infrastructure failed; run the command that made it again" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "expert"], "--model expert plays recorded actions: name the trajectories with --experts"),
        (["--model", "q", "--start", "step:1"], "--start step:1 begins at an expert's step: name the trajectories"),
        (["--model", "q", "--own-history", "0.9"], "--own-history is about the way to an expert's step: it needs --start"),
        (
            ["--model", "q", "--own-history", "0.9", "--start", "last:1", "--experts", "x", "--snapshots", "x"],
            "--own-history does not take --snapshots",
        ),
        (["--model", "q", "--snapshots", "x"], "--snapshots are states of experts"),
        (["--model", "q", "--task", "no", "--endpoint", "http://x"], "nothing to roll out: no: no task of this id"),
        (["--model", "q", "--scaffold", "no", "--endpoint", "http://x"], "unknown scaffold 'no'"),
        (["--model", "q", "--images", "build"], "--images is about the nodes of a cluster: add --cluster"),
        (["--model", "q", "--endpoint", "http://x", "--cluster", "slurm"], "--cluster slurm: expected local, ray, or ray://"),
        (["--model", "tests"], "tests: neither a model's folder nor a training's run folder"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str], reason: str) -> None:
    status, report, err = _run("rollout", TASK, "--out", tmp_path / "run", *options)
    assert (status, report) == (1, None)
    assert f"error: {reason}" in err
    assert not (tmp_path / "run").exists()


def test_a_task_whose_tests_cannot_be_applied_is_no_fault_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "a.py").write_text("")
    row = {"id": "bad", "source": {"path": "repo"}, "test_patch": "@@ -1 +1 @@\n-a\n+b\n"}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(row))
    status, _, err = _run(
        "rollout", tmp_path / "tasks.jsonl", "--model", "q", "--endpoint", "http://x", "--out", tmp_path / "o"
    )
    assert status == 1
    assert "error: nothing to roll out: bad: its test patch cannot be read: not a unified diff" in err


def test_steps_are_evaluated_by_tool_and_place(tiny_model: Path, tmp_path: Path) -> None:
    demonstration, to = ROOT / "trajectories" / f"{NAME}.jsonl", tmp_path / "steps.json"
    options = ["--recipe", ROOT / "recipes" / "quickstart.toml", "--answer-tokens", "4", "--max-steps", "3", "--to", to]
    status, found, err = _run("evaluate", "steps", demonstration, "--model", tiny_model, *options, "--json")
    assert status == 0, err
    assert (found["n"], found["format_validity"]["value"], found["skipped"]) == (3, 0.0, {}), "four tokens are no answer"
    assert [sum(part["n"] for part in parts.values()) for parts in found["parts"].values()] == [3, 3]
    written = json.loads(to.read_text())
    assert [len(step["samples"]) for step in written["steps"]] == [1, 1, 1]
    assert {key: written[key] for key in ("n", "mean_reward", "parts")} == {
        key: found[key] for key in ("n", "mean_reward", "parts")
    }


def test_an_answer_always_has_room() -> None:
    prompt = PromptOptions(max_prompt_tokens=900)
    assert fit_context(prompt, None, 100).max_prompt_tokens == 900
    assert fit_context(prompt, 1000, 50).max_prompt_tokens == 900
    assert fit_context(prompt, 1000, 300).max_prompt_tokens == 700
    assert fit_context(PromptOptions(), 1000, 300).max_prompt_tokens == 700
    with pytest.raises(UserError, match="--answer-tokens 1000 leaves no room for a prompt in the model's context of 1000"):
        fit_context(prompt, 1000, 1000)


def test_a_models_rollout_holds_the_ids_it_was_prompted_and_answered_with(
    client: DockerClient, tiny_model: Path, tmp_path: Path
) -> None:
    prompt = PromptOptions(tool_descriptions=False, max_prompt_tokens=1000)
    options = RolloutOptions(AgentConfig(max_steps=2, max_format_errors=3), attempts=2, workers=2)
    choice = PolicyChoice(str(tiny_model), temperature=1.0, answer_tokens=6, seed=1)
    report = rollout_command([TASK], None, tmp_path, choice, prompt, StartChoice(StartRule("issue")), options, print)
    assert (report.failed, [run.exit_status for run in report.rollouts]) == ([], ["steps", "steps"])
    runs = load([tmp_path / ROLLOUTS])
    assert sorted(map(without_tokens, runs), key=lambda run: run.id) == report.rollouts
    tokenizer = load_tokenizer(str(tiny_model))
    tools = get_scaffold("swe-agent").tools
    drawn = []
    for run in runs:
        for index, turn in enumerate(run.turns):
            if turn.role != "agent":
                continue
            assert turn.sampled is not None
            assert list(turn.sampled.prompt_ids) == encode_step(Step(run, 0, index), tools, prompt, tokenizer)
            assert tokenizer.decode(turn.sampled.token_ids, skip_special_tokens=True) == turn.text
            assert len(turn.sampled.logprobs) == len(turn.sampled.token_ids) == turn.sampled.completion_tokens <= 6
            assert all(value <= 0 for value in turn.sampled.logprobs)
        drawn.append([turn.text for turn in answers(run)])
    assert drawn[0] != drawn[1], "attempts differ"
    assert load_tasks([TASK]).tasks[NAME].problem_statement.strip() in runs[0].problem


def test_the_policy_that_a_choice_names() -> None:
    with open_policy(PolicyChoice("q", "http://localhost/v1"), PromptOptions(), []) as (policy, fitted):
        assert (policy.name, fitted) == ("q", PromptOptions())
    with open_policy(PolicyChoice("expert"), PromptOptions(), []) as (policy, _):
        assert policy.name == "expert"


@pytest.mark.parametrize(
    "choice", [PolicyChoice("q", "http://localhost/v1", engine="vllm"), PolicyChoice("expert", engine="vllm")]
)
def test_an_engine_without_a_model_to_sample_from_is_refused(choice: PolicyChoice) -> None:
    refused = pytest.raises(UserError, match="--engine vllm samples from a model's folder or name")
    with refused, open_policy(choice, PromptOptions(), []):
        pass
