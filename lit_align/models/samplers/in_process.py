"""The model in memory, sampled in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lit_align.hookspecs import Register, hookimpl
from lit_align.models.decoding.batch import Completion
from lit_align.models.generate import sample
from lit_align.models.samplers.base import (
    SampledModel,
    Sampler,
    SamplingRequest,
    request_settings,
)


@dataclass(frozen=True)
class InProcess(Sampler):
    """Sample the model in memory; the same seed and place give the same completion, so runs resume bit for bit."""

    is_exact: ClassVar[bool] = True

    def sample(self, model: SampledModel, request: SamplingRequest) -> list[list[Completion]]:
        with model.activate() as base:
            return sample(base, model.tokenizer, request.prompts, **request_settings(request))


def default_sampler() -> Sampler:
    """The sampler that is used where none is set."""
    return InProcess()


@hookimpl
def register_samplers(register: Register) -> None:
    register(InProcess)
