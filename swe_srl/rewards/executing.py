"""The effect reward of a recipe: values of sampled actions from what they did in forks.

Invariant: the expert's own action is worth 1.0 without being executed; every other value comes from two effects found in equal
states. What cannot be found, or leaves nothing to compare, is unscored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from swe_srl.cache import cache_folder
from swe_srl.config import EffectReward
from swe_srl.environments.image import build_image
from swe_srl.environments.nodes import Nodes
from swe_srl.environments.reaper import connect_and_reap
from swe_srl.environments.shipping import send_image
from swe_srl.environments.task import load_tasks
from swe_srl.errors import UserError
from swe_srl.rewards.effect import effect_similarity
from swe_srl.rewards.forks import EffectCache, Fault, Forks
from swe_srl.rewards.node_forks import OnNodes
from swe_srl.rewards.reward import Part, Unscored
from swe_srl.rewards.states import States
from swe_srl.scaffolds.base import Action
from swe_srl.trajectories.model import Step

NOTHING = Unscored("neither action left anything to compare")


def effect_part(
    options: EffectReward, progress: Callable[[int, int], None] = lambda done, total: None, nodes: Nodes | None = None
) -> Part:
    """The reward; see `open_forks`."""
    forks = open_forks(options, progress, nodes)
    return lambda pairs: effect_values(forks, [(step, answer.action) for step, answer in pairs if answer.action is not None])


def open_forks(
    options: EffectReward, progress: Callable[[int, int], None] = lambda done, total: None, nodes: Nodes | None = None
) -> Forks:
    """A pool of forks as a recipe describes it. Raises UserError where there is no daemon, no snapshot or no task.

    progress: that of `Forks`. nodes: where actions are executed; None: here.
    """
    tasks = load_tasks([Path(path) for path in options.tasks])
    if tasks.bad:
        raise UserError("rewards.effect.tasks: " + "; ".join(f"{origin}: {reason}" for origin, reason in tasks.bad))
    client = connect_and_reap()

    def image_of(name: str) -> str | None:
        if name not in tasks.tasks:
            return None
        tag = build_image(client, tasks.tasks[name]).tag
        if nodes is not None:
            send_image(client, tag, nodes.shipping, nodes.say)
        return tag

    states = States(client, replay=Path(options.replay) if options.replay else None, image_of=image_of)
    cache = EffectCache(Path(options.cache) if options.cache else cache_folder("effects"))
    execute = None
    if nodes is not None:
        execute = OnNodes(nodes.cluster, states, tasks.tasks, nodes.shipping, options.timeout_seconds)
    return Forks(
        client,
        states,
        cache,
        workers=options.workers,
        timeout_seconds=options.timeout_seconds,
        max_seconds=options.max_seconds,
        max_executions=options.max_executions,
        progress=progress,
        execute=execute,
    )


def effect_values(forks: Forks, pairs: Sequence[tuple[Step, Action]]) -> list[float | Unscored]:
    """The value of each action at its step. The expert's effect is found first, and once for all samples of a step."""
    differing = [(step, action) for step, action in pairs if not is_experts(step, action)]
    experts = list({id(step): (step, step.action) for step, _ in differing}.values())
    found = forks.effects([*experts, *differing])
    of_expert = {id(step): effect for (step, _), effect in zip(experts, found, strict=False)}
    of_sample = iter(found[len(experts) :])
    values: list[float | Unscored] = []
    for step, action in pairs:
        if is_experts(step, action):
            values.append(1.0)
            continue
        expert, sample = of_expert[id(step)], next(of_sample)
        if isinstance(expert, Fault) or isinstance(sample, Fault):
            values.append(Unscored(next(effect.reason for effect in (expert, sample) if isinstance(effect, Fault))))
        else:
            value = effect_similarity(expert, sample)
            values.append(NOTHING if value is None else value)
    return values


def is_experts(step: Step, action: Action) -> bool:
    """Whether an action is the expert's: the same tools with the same arguments, in the same order."""
    return [(c.name, dict(c.arguments)) for c in action.calls] == [(c.name, dict(c.arguments)) for c in step.action.calls]
