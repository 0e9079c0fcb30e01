"""What `swe-srl rollout` does: read tasks and experts, open the policy, make the rollouts.

Invariant: what cannot be rolled out is in the report with its reason; options that do not go together are refused before
anything is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from swe_srl.cluster.base import Cluster
from swe_srl.cluster.local import LocalCluster
from swe_srl.cluster.select import open_cluster
from swe_srl.config import SamplingSection
from swe_srl.environments.grading import patched_files
from swe_srl.environments.task import Task, load_tasks
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.prompts import PromptOptions
from swe_srl.rollouts.agent import Policy
from swe_srl.rollouts.batching import Batcher
from swe_srl.rollouts.policies import Endpoint, EndpointPolicy, SampledPolicy, ScriptedPolicy
from swe_srl.rollouts.run import RolloutOptions, RolloutReport, act_alone, act_led, run_rollouts
from swe_srl.rollouts.starts import StartRule, starts
from swe_srl.trajectories.importing import load
from swe_srl.trajectories.model import Trajectory

EXPERT = "expert"
"""The name of the policy that plays the experts' own actions."""


@dataclass(frozen=True, slots=True)
class PolicyChoice:
    """Which policy acts, and how it samples."""

    model: str
    """A model's folder or name, `expert`, or the name that the endpoint knows."""
    endpoint: str | None = None
    """URL of an OpenAI-compatible endpoint, up to and with the version."""
    api_key: str | None = None
    temperature: float = 1.0
    answer_tokens: int = 1024
    """Longest answer."""
    seed: int = 0
    request_seconds: float = 300.0
    """To wait for an endpoint's answer."""
    engine: Literal["transformers", "vllm"] = "transformers"
    """What samples from a checkpoint."""

    def decisive(self) -> dict[str, Any]:
        """What of it decides rollouts, as JSON values."""
        own_name = self.endpoint is not None or self.model == EXPERT
        return {
            "model": self.model if own_name else absolute(self.model),
            "endpoint": self.endpoint,
            "sampling": {"temperature": self.temperature, "answer_tokens": self.answer_tokens, "seed": self.seed},
        }


@dataclass(frozen=True, slots=True)
class StartChoice:
    """Where rollouts begin."""

    rule: StartRule
    experts: tuple[str, ...] = ()
    """Trajectory files, folders or globs."""
    snapshots: Path | None = None
    """Run folder of a replay that kept the experts' states."""
    scaffold: str | None = None
    own_history: float | None = None
    """Least similarity for a turn of the policy's own to stand on the way to the start; None: the way is the expert's."""


def rollout_command(
    task_paths: Sequence[Path],
    only: Sequence[str] | None,
    out: Path,
    choice: PolicyChoice,
    prompt: PromptOptions,
    start: StartChoice,
    options: RolloutOptions,
    say: Callable[[str], None],
    test_command: str | None = None,
) -> RolloutReport:
    """Make the rollouts. Raises UserError where there is nothing to roll out, or options do not go together."""
    _check(choice, start)
    tasks, failed = read_tasks(task_paths, only, test_command, say)
    experts = load(start.experts) if start.experts else []
    led = start.own_history is not None
    begin, left_out = starts(start.rule, tasks, experts, start.scaffold, start.snapshots, led=led)
    failed += left_out
    if not begin:
        raise nothing_to_do(failed)
    with (
        open_cluster(options.cluster, options.workers, say) as cluster,
        open_policy(choice, prompt, experts, cluster) as (policy, fitted),
    ):
        settings = {**choice.decisive(), "prompt": asdict(fitted), "start": str(start.rule)}
        act = act_alone
        if start.own_history is not None:
            settings |= {"own_history": start.own_history}
            act = partial(act_led, least=start.own_history)
        report = run_rollouts(begin, tasks, policy, out, settings, options, say, act, cluster)
    report.failed = failed + report.failed
    return report


def read_tasks(
    paths: Sequence[Path], only: Sequence[str] | None, test_command: str | None, say: Callable[[str], None]
) -> tuple[dict[str, Task], list[dict[str, str]]]:
    """The tasks that were asked for, by id, and the id and reason of what is none. Says which of them cannot be tested."""
    found = load_tasks(paths, test_command)
    tasks = dict(found.tasks) if only is None else {name: found.tasks[name] for name in only if name in found.tasks}
    failed = [{"id": origin, "reason": reason} for origin, reason in found.bad]
    failed += [{"id": name, "reason": "no task of this id"} for name in only or () if name not in found.tasks]
    for name, reason in _bad_test_patches(tasks):
        failed.append({"id": name, "reason": reason})
        del tasks[name]
    for name, task in tasks.items():
        if why := task.extra.get("no_test_command"):
            say(f"{name}: will not be tested: {why}; give --test-command")
    return tasks, failed


def nothing_to_do(failed: Sequence[Mapping[str, str]]) -> UserError:
    """The error where no rollout can be begun."""
    reasons = "; ".join(f"{item['id']}: {item['reason']}" for item in failed[:3]) or "no task was found"
    return UserError(f"nothing to roll out: {reasons}")


@contextmanager
def open_policy(
    choice: PolicyChoice, prompt: PromptOptions, experts: Sequence[Trajectory], cluster: Cluster | None = None
) -> Iterator[tuple[Policy, PromptOptions]]:
    """The policy, and the prompt options with the token budget that the model's context leaves.

    cluster: whose nodes ask the policy; None: this machine.
    """
    if choice.engine != "transformers" and (choice.endpoint is not None or choice.model == EXPERT):
        raise UserError(f"--engine {choice.engine} samples from a model's folder or name: leave it out here")
    if choice.model == EXPERT and choice.endpoint is None:
        yield ScriptedPolicy(experts), prompt
    elif choice.endpoint is not None:
        endpoint = Endpoint(
            url=choice.endpoint,
            model=choice.model,
            api_key=choice.api_key,
            temperature=choice.temperature,
            max_tokens=choice.answer_tokens,
            seconds=choice.request_seconds,
        )
        yield EndpointPolicy(endpoint, prompt), prompt
    elif cluster is not None and not isinstance(cluster, LocalCluster):
        from swe_srl.rollouts.serving import serve_policy

        with serve_policy(cluster, choice, prompt) as served:
            yield served
    else:
        from swe_srl.policy.model import load_policy
        from swe_srl.policy.samplers.select import open_sampler

        model, tokenizer = load_policy(choice.model, device=best_device())
        fitted = fit_context(prompt, getattr(model.config, "max_position_embeddings", None), choice.answer_tokens)
        options = SamplingOptions(temperature=choice.temperature, max_tokens=choice.answer_tokens, seed=choice.seed)
        with (
            closing(open_sampler(SamplingSection(engine=choice.engine), model, tokenizer)) as sampler,
            Batcher(sampler, options) as batcher,
        ):
            yield SampledPolicy(choice.model, batcher, tokenizer, fitted), fitted


def fit_context(prompt: PromptOptions, context: int | None, answer_tokens: int) -> PromptOptions:
    """Prompt options whose budget leaves room for an answer in a context of so many tokens (None: unknown).

    Raises UserError where the answer alone takes the whole context.
    """
    if context is None:
        return prompt
    room = context - answer_tokens
    if room < 1:
        raise UserError(
            f"--answer-tokens {answer_tokens} leaves no room for a prompt in the model's context of {context} tokens"
        )
    return replace(prompt, max_prompt_tokens=min(room, prompt.max_prompt_tokens or room))


def best_device() -> str:
    """`cuda` where there is an accelerator, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _bad_test_patches(tasks: Mapping[str, Task]) -> list[tuple[str, str]]:
    """Tasks that could not be judged by what they bring, which must not count against the policy."""
    bad = []
    for name, task in tasks.items():
        try:
            patched_files(task.test_patch or "")
        except ValueError as error:
            bad.append((name, f"its test patch cannot be read: {error}"))
    return bad


def _check(choice: PolicyChoice, start: StartChoice) -> None:
    if choice.model == EXPERT and choice.endpoint is None and not start.experts:
        raise UserError("--model expert plays recorded actions: name the trajectories with --experts")
    if start.rule.kind != "issue" and not start.experts:
        raise UserError(f"--start {start.rule} begins at an expert's step: name the trajectories with --experts")
    if start.own_history is not None and start.rule.kind == "issue":
        raise UserError("--own-history is about the way to an expert's step: it needs --start step:K or last:N")
    if start.own_history is not None and start.snapshots is not None:
        raise UserError("--own-history does not take --snapshots: the policy's own turns are executed from the issue on")
    if start.snapshots is not None and start.rule.kind == "issue":
        raise UserError("--snapshots are states of experts: they need --start step:K or last:N")


def absolute(model: str) -> str:
    """A folder's full name, so that the same folder is known again; another model's name as it is."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
