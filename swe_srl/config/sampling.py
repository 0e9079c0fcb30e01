"""How answers are sampled, and what samples them.

Invariant: an option that the chosen engine would not use is refused by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from swe_srl.config.section import Section


class VllmSection(Section):
    """How vLLM serves the policy; see docs/samplers.md."""

    url: str | None = Field(default=None, description="Where the server answers, for engine vllm-server; http://HOST:PORT.")
    weights_folder: str | None = Field(
        default=None,
        description="A folder that trainer and server both see, for new weights; absent: the folder for temporary files.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Precision of the served weights; bfloat16 halves memory, and its log-probabilities differ more.",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="Longest prompt and answer together, in tokens; absent: the model's context."
    )
    kv_cache_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory for keys and values, in GiB; absent: 2 on a CPU, what gpu_memory_utilization leaves on a GPU.",
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory for vLLM, weights included; absent: vLLM's default."
    )
    tensor_parallel: int = Field(default=1, ge=1, description="Devices that a model is split over.")
    compile: bool = Field(
        default=True,
        description="Compile the model, and capture CUDA graphs: a slower start (minutes on a CPU), faster samples.",
    )
    sleep: bool = Field(
        default=False, description="Give the GPU's memory back between samplings, where trainer and vLLM share it; CUDA only."
    )

    @model_validator(mode="after")
    def _one_size(self) -> VllmSection:
        if self.kv_cache_gib is not None and self.gpu_memory_utilization is not None:
            raise ValueError("give at most one of `kv_cache_gib` and `gpu_memory_utilization`")
        return self

    def set_to(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default]


_SERVER_OPTIONS = ("url", "weights_folder")


class SamplingSection(Section):
    """How answers are sampled during srl stages; evaluation is greedy."""

    engine: Literal["transformers", "vllm", "vllm-server"] = Field(
        default="transformers",
        description="transformers samples from the trainer's own model; vllm starts an engine beside the trainer; vllm-server "
        "uses one that is running.",
    )
    engines: int = Field(
        default=1,
        ge=1,
        description="Engines beside the trainer, which share the prompts of each call; each of vllm.tensor_parallel devices. "
        "1 with transformers and staleness 0: the trainer's own model.",
    )
    restarts: int = Field(
        default=2, ge=0, description="How often in one call an engine beside the trainer that has ended is started again."
    )
    staleness: Literal[0, 1] = Field(
        default=0,
        description="1: each batch is sampled while the update before it runs, with the weights from before that update, "
        "by engines beside the trainer; stages then need a mismatch correction. 0: sampled and trained on in turns.",
    )
    samples: int = Field(default=8, ge=1, description="Answers a step: the group size G.")
    temperature: float = Field(
        default=1.0, ge=0, description="Sampling temperature; log-probabilities are taken at the same one."
    )
    max_tokens: int = Field(default=512, ge=1, description="Longest answer, in tokens; a longer one is cut and invalid.")
    vllm: VllmSection = Field(default=VllmSection(), description="Options of the engines vllm and vllm-server.")

    @model_validator(mode="after")
    def _options_are_the_engines(self) -> SamplingSection:
        known = {"transformers": (), "vllm-server": (*_SERVER_OPTIONS, "dtype")}.get(
            self.engine, [name for name in VllmSection.model_fields if name not in _SERVER_OPTIONS]
        )
        foreign = [f"vllm.{name}" for name in self.vllm.set_to() if name not in known]
        if foreign:
            raise ValueError(f"engine {self.engine!r} does not take {', '.join(foreign)}")
        if self.engine == "vllm-server" and self.engines > 1:
            raise ValueError("engine 'vllm-server' does not take engines: start the server with --data-parallel-size")
        if self.staleness and self.vllm.sleep:
            raise ValueError("staleness = 1 does not take vllm.sleep: engines sample while the trainer needs the memory")
        if not self.has_engines and self.restarts != type(self).model_fields["restarts"].default:
            raise ValueError(f"restarts has no use with engine {self.engine!r}: the trainer starts none")
        if self.engine == "vllm-server" and not (self.vllm.url or "").startswith(("http://", "https://")):
            raise ValueError("engine 'vllm-server' needs vllm.url, for example http://127.0.0.1:8000")
        return self

    @property
    def has_engines(self) -> bool:
        """Whether the trainer starts engines with weights of their own."""
        return self.engine == "vllm" or (self.engine == "transformers" and (self.engines > 1 or self.staleness > 0))

    @property
    def elsewhere(self) -> bool:
        """Whether samples are drawn in other processes than those that train."""
        return self.has_engines or self.engine == "vllm-server"
