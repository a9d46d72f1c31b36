"""Sample responses from the policy, as token ids and as text; used by RL and by on-line training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.out_of_memory import raise_out_of_memory
from lit_align.models.samplers import Completion, SampledModel, Sampler, SamplingRequest
from lit_align.models.stop_ids import stop_ids
from lit_align.plugin_contracts import CompletionLimits, completions_fault, require_contract
from lit_align.processes import Processes

T = TypeVar("T")

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


def sample_responses(
    sampler: Sampler,
    adapters: AdapterSet,
    tokenizer: PreTrainedTokenizerBase,
    request: SamplingRequest,
) -> tuple[list[list[Completion]], list[list[str]]]:
    """Sample responses to each prompt from the policy.

    Args:
        sampler: what samples.
        adapters: the base model with the adapter ``policy``.
        tokenizer: decodes the responses, without special tokens.
        request: the prompts and how to sample.

    Returns:
        Completions and their texts, both ``[prompt][generation]``.

    Raises:
        TrainingError: if memory runs out; it names the settings to lower.
    """
    with raise_out_of_memory(partial(_advice, request)):
        model = SampledModel.of_role(adapters, tokenizer)
        completions = checked_completions(sampler, model, request)
    return completions, [_texts(tokenizer, generations) for generations in completions]


def share_sampling(
    sampler: Sampler,
    processes: Processes,
    count: int,
    sample_some: Callable[[list[int]], Sequence[T]],
) -> list[T]:
    """What all processes get of ``count`` prompts: each samples some of them, or the first all from another program.

    Args:
        sampler: what samples.
        processes: of the run.
        count: prompts.
        sample_some: samples those at some places.
    """
    if sampler.computes_elsewhere:
        return processes.from_first(lambda: [*sample_some([*range(count)])])
    return processes.share(count, sample_some)


def checked_completions(
    sampler: Sampler, model: SampledModel, request: SamplingRequest
) -> list[list[Completion]]:
    """Sample completions, and look whether they are what was requested.

    Raises:
        PluginError: if they are not.
    """
    completions = sampler.start(model, request)()
    require_contract(completions_fault(sampler, completions, completion_limits(model, request)))
    return completions


def completion_limits(model: SampledModel, request: SamplingRequest) -> CompletionLimits:
    """What the completions of a model are checked by."""
    with model.activate() as base:
        return CompletionLimits(
            len(request.prompts),
            request.num_generations,
            request.max_new_tokens,
            base.config.get_text_config().vocab_size,
            stop_ids(base, model.tokenizer),
        )


def _texts(tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion]) -> list[str]:
    texts = []
    for completion in completions:
        texts.append(str(tokenizer.decode(completion.ids, skip_special_tokens=True)))
    return texts


def _advice(request: SamplingRequest) -> str:
    return (
        f"out of memory while {request.batch_size} responses of up to {request.max_new_tokens} tokens were sampled at "
        "once; lower data.batch_size, num_generations or model.max_new_tokens (`lit-align inspect` predicts the memory)"
    )
