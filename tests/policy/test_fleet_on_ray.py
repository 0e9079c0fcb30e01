"""Engines on the nodes of a Ray cluster: raylets of their own on this machine, one of them killed for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.cluster_utils import Cluster as Nodes

from swe_srl.cluster.ray import RayCluster
from swe_srl.config import SamplingSection
from swe_srl.environments.node_status import engine_processes
from swe_srl.errors import UserError
from swe_srl.policy.base import SamplingOptions
from swe_srl.policy.samplers import transformers
from swe_srl.policy.samplers.fleet import Fleet
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler

pytestmark = pytest.mark.xdist_group("ray")

OPTIONS = SamplingOptions(n=2, max_tokens=12, seed=7)
PROMPTS = [list(range(5 + start, 45 + start + 8 * start)) for start in (0, 3, 1, 4)]
BUDGET = 150
_STORE = 80 * 1024**2


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """A head that takes no engines, and two nodes that take one each."""
    made = Nodes()
    made.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False)
    for _ in range(2):
        made.add_node(num_cpus=1, object_store_memory=_STORE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def test_engines_of_a_killed_node_go_on_elsewhere(
    nodes: Nodes, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transformers, "BATCH_TOKENS", BUDGET)
    cluster = RayCluster(None, print, patience=60.0)
    before = model.lm_head.weight.detach().clone()

    def alone() -> Any:
        return TransformersSampler(model, tokenizer, batch_tokens=BUDGET).sample(PROMPTS, OPTIONS)

    with closing(open_sampler(SamplingSection(engines=2), model, tokenizer, cluster)) as fleet:
        assert isinstance(fleet, Fleet)
        places = [host.placed for host in fleet._hosts]  # type: ignore[union-attr]
        assert len({place.node for place in places}) == 2
        assert {place.name for place in places} == {"NodeEngine"}
        found = [psutil.Process(pid).cmdline()[0] for pid in engine_processes()]
        assert sum(name.startswith("ray::NodeEngine") for name in found) == 2
        assert fleet.sample(PROMPTS, OPTIONS) == alone()
        assert min(fleet.report()["engines"]["prompts"]) >= 1
        try:
            with torch.no_grad():
                model.lm_head.weight.mul_(1.5)
            fleet.update_weights(None)
            expected = alone()
            fleet.take_weights()
            nodes.add_node(num_cpus=1, object_store_memory=_STORE)
            # The one whose engine is asked while it can no longer answer.
            [lost] = [node for node in nodes.worker_nodes if node.node_id == places[1].node]
            family = psutil.Process(lost.all_processes["raylet"][0].process.pid).children(recursive=True)
            for process in family:
                process.suspend()
            with ThreadPoolExecutor(1) as pool:
                sampling = pool.submit(fleet.sample, PROMPTS, OPTIONS)
                time.sleep(0.5)
                assert not sampling.done()
                nodes.remove_node(lost, allow_graceful=False)
                for process in family:
                    if process.is_running():
                        process.kill()
                assert sampling.result(120) == expected
        finally:
            with torch.no_grad():
                model.lm_head.weight.copy_(before)
        assert fleet.report()["engines"]["restarts"] == 1
        now = [host.placed.node for host in fleet._hosts]  # type: ignore[union-attr]
        assert now[0] == places[0].node
        assert now[1] not in {place.node for place in places}


def test_a_server_of_somebody_elses_is_not_placed(model: Any, tokenizer: Any) -> None:
    section: Any = SamplingSection(engine="vllm-server", vllm={"url": "http://127.0.0.1:9"})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--cluster starts engines on its nodes, and 'vllm-server' is one that runs already"):
        open_sampler(section, model, tokenizer, object())  # type: ignore[arg-type]
