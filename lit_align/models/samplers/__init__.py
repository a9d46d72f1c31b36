"""Samplers: what draws completions from a model; one file each."""

from lit_align.models.decoding.batch import Completion
from lit_align.models.samplers.base import SampledModel, Sampler, SamplingRequest
from lit_align.models.samplers.in_process import default_sampler

__all__ = ["Completion", "SampledModel", "Sampler", "SamplingRequest", "default_sampler"]
