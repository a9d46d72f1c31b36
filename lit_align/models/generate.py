"""Sample completions from the active adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lit_align.errors import ModelError
from lit_align.models.decoding.batch import (
    Choice,
    Completion,
    decode_batch,
    steps_between_checks,
)
from lit_align.models.decoding.batch_rows import rows_at_once
from lit_align.models.decoding.dense_base import dense_base
from lit_align.models.decoding.next_logits import contiguous_head_input
from lit_align.models.decoding.prompts import Limits, Prompts
from lit_align.models.decoding.sequences import sequences_for
from lit_align.models.decoding.token_choice import choose_tokens
from lit_align.models.stop_ids import stop_ids
from lit_align.seeding import step_seed

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

__all__ = [
    "Completion",
    "check_context_length",
    "check_prompts",
    "generate",
    "sample",
    "stream",
]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    num_generations: int = 1,
    seed: int = 0,
    prompt_indices: Sequence[int] | None = None,
    batch_size: int = 32,
) -> list[list[list[int]]]:
    """Token ids of completions, ``[prompt][sample]``, without the token that ended them; see `sample`."""
    sampled = sample(
        model,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        num_generations=num_generations,
        seed=seed,
        prompt_indices=prompt_indices,
        batch_size=batch_size,
    )
    responses = []
    for completions in sampled:
        responses.append([completion.response_ids for completion in completions])
    return responses


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    num_generations: int = 1,
    seed: int = 0,
    prompt_indices: Sequence[int] | None = None,
    batch_size: int = 32,
    token_budget: int = 8192,
) -> list[list[Completion]]:
    """Sample completions, ``[prompt][sample]``, from the full distribution: without top-k or top-p.

    A completion depends on the seed and its prompt's index, not on the rest of its batch. In bfloat16 the
    log-probabilities differ from those of the training pass by up to 0.2 nats: compute them again for training.

    Args:
        model: the base model with the adapter active; runs in eval mode without gradient and returns to its mode.
        tokenizer: decides which tokens end a completion.
        prompts: token ids of each prompt, at least one.
        max_new_tokens: limit of a completion, including the token that ends it.
        temperature: 0 for greedy decoding.
        num_generations: completions of each prompt; they share the pass over it.
        seed: of the random numbers.
        prompt_indices: of the prompts in the whole data set; None if these are all.
        batch_size: completions that are decoded at once; at least those of one prompt.
        token_budget: tokens of prompts that are read at once; at least those of one prompt.

    Raises:
        ModelError: if a prompt is empty, or leaves no positions for a completion.
    """
    check_prompts(model.config, prompts, max_new_tokens)
    indices = range(len(prompts)) if prompt_indices is None else prompt_indices
    stop_tokens = frozenset(stop_ids(model, tokenizer))
    choice = Choice(temperature, stop_tokens, steps_between_checks(model.device))
    batch_prompts = max(1, rows_at_once(model, batch_size) // num_generations)
    # longest first: out of memory at once, or never
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    completions: dict[int, list[Completion]] = {}
    with _evaluating(model), contiguous_head_input(model), dense_base(model):
        for start in range(0, len(prompts), batch_prompts):
            batch = order[start : start + batch_prompts]
            places = [indices[i] for i in batch]
            draws = [_draw_uniforms(seed, i, num_generations, max_new_tokens) for i in places]
            uniforms = torch.stack(draws).to(model.device)
            batch_ids = [prompts[i] for i in batch]
            decoded = decode_batch(model, batch_ids, uniforms, choice, token_budget)
            completions.update(zip(batch, decoded, strict=True))
    return [completions[i] for i in range(len(prompts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[int]:
    """Token ids of one completion as they are sampled, without the token that ends it: the same as by `generate`.

    The model's mode is restored between two tokens, so another adapter may be active meanwhile.
    """
    stop_tokens = stop_ids(model, tokenizer)
    uniforms = _draw_uniforms(seed, 0, 1, max_new_tokens).to(model.device)
    padded = Prompts.pad([prompt], model.device)
    limit = len(prompt) + max_new_tokens
    sequences, token = sequences_for(model, limit), None
    for step in range(max_new_tokens):
        with _evaluating(model):
            if token is None:
                logits = sequences.read(padded, Limits(1, max_new_tokens, limit))
            else:
                sequences.reserve(1)
                logits = sequences.append(token)
            uniform = uniforms[:, step] if temperature else None
            token, _ = choose_tokens(logits, temperature, uniform)
        if int(token) in stop_tokens:
            return
        yield int(token)


def check_prompts(
    config: PreTrainedConfig, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
    """Refuse empty prompts, and those that need more positions than the model has.

    Raises:
        ModelError: naming the prompt or the numbers.
    """
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ModelError(f"prompt {number} is empty; a response must follow something")
    longest = max(map(len, prompts), default=0)
    check_context_length(config, longest, max_new_tokens)


def check_context_length(config: PreTrainedConfig, prompt_tokens: int, max_new_tokens: int) -> None:
    """Refuse prompts that need more positions than the model has.

    Args:
        config: the model's configuration.
        prompt_tokens: tokens of the longest prompt.
        max_new_tokens: limit of a completion.

    Raises:
        ModelError: naming all three numbers; models would go on with nonsense, or CUDA would fail without a reason.
    """
    needed = prompt_tokens + max_new_tokens
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or needed
    if needed > positions:
        raise ModelError(
            f"a prompt of {prompt_tokens} tokens and max_new_tokens {max_new_tokens} need {needed} positions, and the "
            f"model has {positions}; lower max_new_tokens, or data.max_length, which drops longer prompts"
        )


def _draw_uniforms(seed: int, prompt_index: int, num_generations: int, max_new: int) -> Tensor:
    """Uniform numbers for all tokens of a prompt, ``[samples, max_new]``: drawn in advance, whichever rows finish."""
    generator = torch.Generator()
    generator.manual_seed(step_seed(seed, prompt_index) % 2**63)  # its seeds have 63 bits
    return torch.rand(num_generations, max_new, generator=generator, dtype=torch.float64)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # in train mode checkpointing would drop the cache
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
