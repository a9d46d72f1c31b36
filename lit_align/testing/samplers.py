"""Check of what every sampler must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lit_align.models.sample_responses import completion_limits
from lit_align.models.samplers import Completion, SampledModel, Sampler, SamplingRequest
from lit_align.plugin_contracts import completions_fault
from lit_align.plugin_signatures import signature_fault
from lit_align.testing.objective_checks import call, hold, require

MAX_NEW_TOKENS = 4


def check_sampler(sampler: Sampler, model: SampledModel, prompts: Sequence[Sequence[int]]) -> None:
    """Fail unless ``sampler`` gives each prompt its completions, with a log-probability of each token.

    It must answer greedily and at a temperature, give as many completions of each prompt as were requested, and leave
    the model in the mode and with the adapter that it had. An exact sampler must also give the same completions of a
    prompt in a second call, and when the prompts are shared out.

    Args:
        sampler: with the settings to check it at.
        model: a small model to sample.
        prompts: token ids of at least two prompts.

    Raises:
        AssertionError: if a property does not hold.
    """
    hold(signature_fault(sampler))
    name, before = type(sampler).__name__, _state(model)
    request = SamplingRequest(prompts, MAX_NEW_TOKENS, num_generations=2, seed=1)
    drawn = _sample(sampler, model, request)
    _sample(sampler, model, replace(request, temperature=0.0, num_generations=1))
    require(
        _state(model) == before, f"{name} leaves the model in another mode or with another adapter"
    )
    if not sampler.is_exact:
        return
    require(_sample(sampler, model, request) == drawn, f"{name} draws others in a second call")
    places = range(1, len(prompts))
    some = replace(request, prompts=prompts[1:], prompt_indices=places)
    require(
        _ids(_sample(sampler, model, some)) == _ids(drawn[1:]),
        f"{name} draws others when the prompts are shared out; draw by seed and request.places",
    )


def _sample(
    sampler: Sampler, model: SampledModel, request: SamplingRequest
) -> list[list[Completion]]:
    completions = call(sampler, sampler.sample, model, request)
    hold(completions_fault(sampler, completions, completion_limits(model, request)))
    drawn: list[list[Completion]] = completions
    return drawn


def _ids(rows: Sequence[Sequence[Completion]]) -> list[list[list[int]]]:
    return [[completion.ids for completion in row] for row in rows]


def _state(model: SampledModel) -> tuple[str, bool] | None:
    adapters = model.adapters
    return None if adapters is None else (adapters.active, adapters.peft.training)
