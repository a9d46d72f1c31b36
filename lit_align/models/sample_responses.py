"""Sample responses from the policy, as token ids and as text; used by RL and by on-line training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from lit_align.models.adapter_set import AdapterSet
from lit_align.models.generate import Completion, sample
from lit_align.models.out_of_memory import raise_out_of_memory

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import PreTrainedTokenizerBase


def sample_responses(
    adapters: AdapterSet,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    num_generations: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    prompts_at_once: int,
    token_budget: int,
    prompt_indices: Sequence[int] | None = None,
) -> tuple[list[list[Completion]], list[list[str]]]:
    """Sample responses to each prompt from the policy.

    Args:
        adapters: the base model with the adapter ``policy``.
        tokenizer: decodes the responses, without special tokens.
        prompts: token ids of each prompt.
        num_generations: responses to each prompt.
        max_new_tokens: limit of a response, in tokens.
        temperature: sampling temperature.
        seed: seed of the random numbers.
        prompts_at_once: prompts whose responses are decoded together.
        token_budget: tokens of prompts that are read at once.
        prompt_indices: of the prompts among those of all processes, which seed their random numbers; None if these are
            all.

    Returns:
        Completions and their texts, both ``[prompt][generation]``.

    Raises:
        TrainingError: if memory runs out; it names the settings to lower.
    """
    num_responses = min(prompts_at_once, len(prompts)) * num_generations
    with (
        raise_out_of_memory(partial(_advice, num_responses, max_new_tokens)),
        adapters.activate("policy", training=False) as model,
    ):
        completions = sample(
            model,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            num_generations=num_generations,
            temperature=temperature,
            seed=seed,
            prompt_indices=prompt_indices,
            batch_size=num_responses,
            token_budget=token_budget,
        )
    return completions, [_texts(tokenizer, generations) for generations in completions]


def _texts(tokenizer: PreTrainedTokenizerBase, completions: Sequence[Completion]) -> list[str]:
    texts = []
    for completion in completions:
        texts.append(str(tokenizer.decode(completion.ids, skip_special_tokens=True)))
    return texts


def _advice(num_responses: int, max_new_tokens: int) -> str:
    return (
        f"out of memory while {num_responses} responses of up to {max_new_tokens} tokens were sampled at once; "
        "lower data.batch_size, num_generations or model.max_new_tokens (`lit-align inspect` predicts the memory)"
    )
