"""Outcome stages whose sandboxes are those of a cluster: what is sampled, learnt and written is what one machine would."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import several
from corridors import everything, opened, recipe
from docker import DockerClient
from machines import until
from rich.console import Console
from second_daemon import Daemon
from several import assert_alike, finish, launch
from two_machines import TwoMachines

from swe_srl.config import Recipe
from swe_srl.environments.nodes import open_nodes
from swe_srl.environments.shipping import Shipping
from swe_srl.errors import UserError
from swe_srl.policy.model import load_policy
from swe_srl.policy.samplers.transformers import TransformersSampler
from swe_srl.recipes import load_recipe
from swe_srl.training.data import load_dataset
from swe_srl.training.interrupt import StopRequested
from swe_srl.training.opening import Where
from swe_srl.training.outcome import OutcomeBatches, open_rollouts
from swe_srl.training.trainer import train

pytestmark = pytest.mark.xdist_group("ray")


@pytest.fixture(scope="module")
def world(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with opened(client, tmp_path_factory.mktemp("world")) as folder:
        yield folder


@pytest.fixture(scope="module")
def read(world: Path) -> Recipe:
    """Two updates of eight rollouts of two turns, four at a time."""
    text = {"n = 1": "n = 2", "passes = 4": "passes = 4\nworkers = 4"}
    return load_recipe(recipe(world, "on-ray", 2, **text))


def written(run: Path) -> dict[str, Any]:
    """All but what engines say of themselves: on a cluster there is one beside the trainer."""
    found = everything(run)
    for line in found["metrics"]:
        line.pop("engines", None)
    return found


@pytest.fixture(scope="module")
def here(read: Recipe, world: Path) -> dict[str, Any]:
    """What this machine makes of it."""
    train(read, world / "here", console=Console(quiet=True))
    found = written(world / "here")
    assert {line["turns_max"] for line in found["metrics"]} == {2}
    assert any(not line["skipped"] for line in found["metrics"]), "something is learnt"
    return found


@pytest.fixture
def where(tmp_path: Path) -> Where:
    return Where("ray", Shipping.parse(f"folder:{tmp_path / 'images'}"))


def test_rollouts_on_the_nodes_teach_what_those_of_this_machine_teach(
    machines: TwoMachines,
    other_daemon: tuple[Daemon, DockerClient],
    read: Recipe,
    here: dict[str, Any],
    where: Where,
    tmp_path: Path,
) -> None:
    train(read, tmp_path / "there", console=Console(quiet=True), where=where)
    assert written(tmp_path / "there") == here
    assert other_daemon[1].images.list("swe-srl/task"), "both machines had a part in it"
    assert other_daemon[1].containers.list(all=True) == []


def test_several_processes_train_on_what_the_nodes_roll_out_and_their_engines_sample(
    machines: TwoMachines,
    other_daemon: tuple[Daemon, DockerClient],
    read: Recipe,
    here: dict[str, Any],
    world: Path,
    where: Where,
    tmp_path: Path,
) -> None:
    run = tmp_path / "two"
    chosen = ['model.weights="sharded"', 'cluster.address="ray"', f'cluster.images="folder:{where.shipping.where}"']
    asked = [word for option in chosen for word in ("--set", option)]
    finish(launch(world / "on-ray.toml", "--out", run, *asked, environment={"RAY_ADDRESS": machines.nodes.address}))
    assert_alike(run, world / "here")
    assert all(sum(line["engines"]["prompts"]) > 0 for line in several.lines(run, "metrics.jsonl"))
    assert other_daemon[1].images.list("swe-srl/task"), "both machines had a part in it"


def test_stopped_after_a_round_it_leaves_no_sandbox_on_any_node(
    machines: TwoMachines, client: DockerClient, other_daemon: tuple[Daemon, DockerClient], read: Recipe, where: Where
) -> None:
    def stop() -> None:
        raise StopRequested(signal.SIGTERM)

    other = other_daemon[1]
    model, tokenizer = load_policy(read.model.name)
    with open_nodes(where.cluster, where.shipping, print) as nodes:
        rollouts = open_rollouts(read, load_dataset(read, tokenizer), tokenizer, 1024, print, nodes)[0]
        images = [origin.image for origin in rollouts.origins]
        source = OutcomeBatches(
            rollouts, TransformersSampler(model, tokenizer), read.sampling_of(read.stages[0]), "0", between=stop
        )
        with pytest.raises(StopRequested):
            next(source)
        until(lambda: not client.containers.list(all=True, filters={"ancestor": images}), 30)
        until(lambda: not other.containers.list(all=True), 30)


def test_more_rollouts_in_step_than_the_nodes_take_are_refused(
    machines: TwoMachines, read: Recipe, where: Where, tmp_path: Path
) -> None:
    [stage] = read.stages
    wide = read.model_copy(update={"stages": [stage.model_copy(update={"workers": 5})]})
    with pytest.raises(UserError, match=r"stages\.0\.workers = 5: .* the nodes of the cluster take 4 sandboxes at a time"):
        train(wide, tmp_path / "wide", console=Console(quiet=True), where=where)
    assert not (tmp_path / "wide" / "metrics.jsonl").exists()


def test_what_a_lost_machine_had_begun_is_made_elsewhere_as_it_would_have_been(
    machines: TwoMachines,
    other_daemon: tuple[Daemon, DockerClient],
    read: Recipe,
    here: dict[str, Any],
    where: Where,
    tmp_path: Path,
) -> None:
    run, other = tmp_path / "there", other_daemon[1]
    training = threading.Thread(target=train, args=(read, run), kwargs={"console": Console(quiet=True), "where": where})
    training.start()
    until(lambda: (run / "evaluation-before.json").exists() and other.containers.list(), 120)
    machines.lose_second()
    machines.second = machines.add_second()
    training.join(300)
    assert not training.is_alive()
    assert written(run) == here
