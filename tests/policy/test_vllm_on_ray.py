"""vLLM's engine on a node of a Ray cluster that is joined through its client port, and the end of its process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest
import torch
from ray.cluster_utils import Cluster as Nodes

from swe_srl.cluster.ray import RayCluster
from swe_srl.config import SamplingSection, VllmSection
from swe_srl.policy.base import Sample, SamplingOptions
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler

pytestmark = pytest.mark.xdist_group("vllm")

GREEDY = SamplingOptions(n=1, temperature=0.0, max_tokens=16)
PROMPTS = [[5 + (first + i) % 395 for i in range(60)] for first in (0, 200)]
_STORE = 80 * 1024**2


@pytest.fixture
def address() -> Iterator[str]:
    """Of the client port of a head that takes no engine, with one node that does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = Nodes()
    nodes.add_node(num_cpus=0, object_store_memory=_STORE, include_dashboard=False, ray_client_server_port=port)
    nodes.add_node(num_cpus=1, object_store_memory=_STORE)
    yield f"ray://127.0.0.1:{port}"
    nodes.shutdown()


def test_it_serves_each_version_of_the_weights_there_and_is_started_again(
    tiny: Callable[..., Any], tokenizer: Any, vllm_engine: None, address: str
) -> None:
    model = tiny("llama", head_dim=64, max_position_embeddings=640)  # vLLM on a CPU serves no smaller heads
    section = SamplingSection(engine="vllm", vllm=VllmSection(max_model_len=640, kv_cache_gib=0.1, compile=False))

    def alone() -> list[Any]:
        return texts(TransformersSampler(model, tokenizer).sample(PROMPTS, GREEDY))

    with RayCluster(address, print) as cluster, closing(open_sampler(section, model, tokenizer, cluster)) as fleet:
        assert texts(fleet.sample(PROMPTS, GREEDY)) == alone()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        fleet.update_weights(None)
        assert texts(fleet.sample(PROMPTS, GREEDY)) == alone()
        [engine] = engines()
        engine.kill()
        assert texts(fleet.sample(PROMPTS, GREEDY)) == alone()
        assert fleet.report()["engines"]["restarts"] == 1
    psutil.wait_procs(engines(), timeout=20)
    assert engines() == []


def engines() -> list[psutil.Process]:
    """Of the cluster's nodes, which this process has started."""
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and child.cmdline()[0].startswith("ray::NodeEngine")
    ]


def texts(groups: list[list[Sample]]) -> list[tuple[tuple[int, ...], str]]:
    return [(sample.token_ids, sample.text) for group in groups for sample in group]
