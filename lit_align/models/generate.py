"""Sample completions from the active adapter."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from lit_align.compat.stopping import stop_if_told
from lit_align.errors import ModelError
from lit_align.models.stop_ids import stop_ids
from lit_align.progress import note_sampled
from lit_align.seeding import step_seed

if TYPE_CHECKING:
    from lit_align.compat.transformers_types import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )


class Completion(NamedTuple):
    """One sampled completion.

    Args:
        ids: its tokens, including the one that ended it.
        logps: log-probability of each token at the sampling temperature; at 1 with greedy decoding.
        ended: whether the model ended it, rather than the limit.
    """

    ids: list[int]
    logps: list[float]
    ended: bool

    @property
    def response_ids(self) -> list[int]:
        """Its tokens without the one that ended it."""
        return self.ids[:-1] if self.ended else self.ids


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
    _check_prompts(model.config, prompts, max_new_tokens)
    indices = range(len(prompts)) if prompt_indices is None else prompt_indices
    options = _Options(temperature, stop_ids(model, tokenizer), token_budget)
    batch_prompts = max(1, batch_size // num_generations)
    # longest first: out of memory at once, or never
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    completions: dict[int, list[Completion]] = {}
    with _evaluating(model):
        for start in range(0, len(prompts), batch_prompts):
            batch = order[start : start + batch_prompts]
            places = [indices[i] for i in batch]
            draws = [_draw_uniforms(seed, i, num_generations, max_new_tokens) for i in places]
            uniforms = torch.stack(draws).to(model.device)
            decoded = _decode(model, [prompts[i] for i in batch], uniforms, options)
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
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    stop_tokens = stop_ids(model, tokenizer)
    uniforms = _draw_uniforms(seed, 0, 1, max_new_tokens).to(model.device)
    ids = torch.tensor([list(prompt)], device=model.device)
    for step in range(max_new_tokens):
        attention_mask = ids.new_ones(1, len(prompt) + step)
        positions = torch.arange(len(prompt) + step, device=model.device)
        positions = positions[None, -ids.shape[1] :]
        with _evaluating(model):
            logits = _next_logits(model, ids, attention_mask, positions, cache)
            logits = logits / (temperature or 1.0)
            token = _sample_token(logits, uniforms[:, step] if temperature else None)
        if int(token) in stop_tokens:
            return
        yield int(token)
        ids = token[:, None]


def _check_prompts(
    config: PreTrainedConfig, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
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


class _Options(NamedTuple):
    """How to sample.

    Args:
        temperature: 0 for greedy decoding.
        stop_tokens: tokens that end a completion.
        token_budget: tokens of prompts that are read at once.
    """

    temperature: float
    stop_tokens: list[int]
    token_budget: int


@dataclass
class _Sequences:
    """Sequences that are decoded together.

    Args:
        cache: keys and values of the tokens so far.
        attention_mask: ``[rows, tokens so far]``, 0 is padding on the left.
        position: ``[rows, 1]``, of the last token.
        has_row_cache: whether rows of the cache can be copied, joined and dropped; those of recurrent states cannot.
    """

    cache: Any
    attention_mask: Tensor
    position: Tensor
    has_row_cache: bool

    def select(self, rows: Tensor) -> None:
        """Drop all other rows."""
        self.attention_mask = self.attention_mask[rows]
        self.position = self.position[rows]
        self.cache.batch_select_indices(rows)

    def append(self, model: PreTrainedModel, token: Tensor) -> Tensor:
        """Append a token to each row; logits of the next one."""
        ones = self.attention_mask.new_ones(len(self.attention_mask), 1)
        self.attention_mask = torch.cat([self.attention_mask, ones], 1)
        self.position = self.position + 1
        ids = token[:, None]
        return _next_logits(model, ids, self.attention_mask, self.position, self.cache)


def _decode(
    model: PreTrainedModel, prompts: list[Sequence[int]], uniforms: Tensor, options: _Options
) -> list[list[Completion]]:
    """Decode all completions of ``prompts`` together, ``[prompt][sample]``; finished ones leave the batch.

    Args:
        model: in eval mode.
        prompts: token ids.
        uniforms: ``[prompts, samples, max_new_tokens]``.
        options: how to sample.
    """
    device, num_generations = model.device, uniforms.shape[1]
    logits, sequences = _prefill(model, prompts, num_generations, options.token_budget)
    uniforms = uniforms.flatten(0, 1)
    count, max_new_tokens = uniforms.shape
    stop = torch.tensor(options.stop_tokens, device=device)
    active = torch.arange(count, device=device)  # the completion that each row of the batch decodes
    tokens = torch.zeros(count, max_new_tokens, dtype=torch.long, device=device)
    logps = torch.zeros(count, max_new_tokens, device=device)
    length = torch.zeros_like(active)
    ended = torch.zeros_like(active, dtype=torch.bool)
    num_noted = 0  # completions that are done
    for step in range(max_new_tokens):
        stop_if_told()
        logits = logits / (options.temperature or 1.0)
        token = _sample_token(logits, uniforms[active, step] if options.temperature else None)
        is_running = ~ended[active]
        running = active[is_running]
        tokens[running, step] = token[is_running]
        length[running] = step + 1
        token_logps = logits.log_softmax(-1).gather(1, token[:, None])
        logps[running, step] = token_logps[is_running, 0]
        ended[running] = torch.isin(token[is_running], stop)
        is_last = step == max_new_tokens - 1
        num_done = count if is_last else int(ended.sum())
        note_sampled(num_done - num_noted, len(running))
        num_noted = num_done
        if num_done == count:
            break
        if sequences.has_row_cache and ended[active].any():
            rows = (~ended[active]).nonzero()[:, 0]
            active, token = active[rows], token[rows]
            sequences.select(rows)
        logits = sequences.append(model, token)
    completions = []
    tokens, logps, all_ended = tokens.cpu(), logps.cpu(), ended.tolist()
    for row, n in enumerate(length.tolist()):
        ids, row_logps = tokens[row, :n].tolist(), logps[row, :n].tolist()
        completions.append(Completion(ids, row_logps, all_ended[row]))
    return [completions[i : i + num_generations] for i in range(0, count, num_generations)]


def _prefill(
    model: PreTrainedModel, prompts: list[Sequence[int]], num_generations: int, token_budget: int
) -> tuple[Tensor, _Sequences]:
    """Read the prompts once each; logits of the first new token, ``[prompts * samples, vocabulary]``."""
    from transformers import DynamicCache
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    attention_mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):  # padded on the left
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        attention_mask[row, width - len(prompt) :] = 1
    ids = ids.to(model.device)
    attention_mask = attention_mask.to(model.device)
    layers = DynamicCache(config=model.config).layers
    # a layer with attention and a recurrent state copies the rows of its attention alone
    has_row_cache = all(
        hasattr(layer, "batch_repeat_interleave")
        and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in layers
    )
    if has_row_cache:
        rows_at_once = max(1, token_budget // width)
    else:
        ids = ids.repeat_interleave(num_generations, 0)
        attention_mask = attention_mask.repeat_interleave(num_generations, 0)
        rows_at_once = len(ids)
    positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)
    caches, parts = [], []
    for start in range(0, len(ids), rows_at_once):
        rows = slice(start, start + rows_at_once)
        caches.append(DynamicCache(config=model.config))
        part = _next_logits(model, ids[rows], attention_mask[rows], positions[rows], caches[-1])
        parts.append(part)
    logits = torch.cat(parts)
    del part, parts  # free them before the caches are joined
    cache = _join_caches(caches)
    if has_row_cache:
        cache.batch_repeat_interleave(num_generations)
        logits = logits.repeat_interleave(num_generations, 0)
        attention_mask = attention_mask.repeat_interleave(num_generations, 0)
        positions = positions.repeat_interleave(num_generations, 0)
    sequences = _Sequences(cache, attention_mask, positions[:, -1:], has_row_cache)
    return logits, sequences


def _join_caches(caches: list[Any]) -> Any:
    """Append the rows of all caches to the first one, layer by layer, so that only one layer is in memory twice."""
    if len(caches) == 1:
        return caches[0]
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        first, *others = layers
        if not first.is_initialized:
            continue
        for name in ("keys", "values"):
            setattr(first, name, torch.cat([getattr(layer, name) for layer in layers]))
            for layer in others:
                setattr(layer, name, None)
    return caches[0]


def _next_logits(
    model: PreTrainedModel, ids: Tensor, attention_mask: Tensor, positions: Tensor, cache: Any
) -> Tensor:
    """Logits of the next token, ``[rows, vocabulary]``, in float32."""
    parameters = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {}  # not every architecture has these
    if "position_ids" in parameters:
        options["position_ids"] = positions
    if "logits_to_keep" in parameters:
        options["logits_to_keep"] = 1
    output = model(
        input_ids=ids,
        attention_mask=attention_mask,
        past_key_values=cache,
        use_cache=True,
        **options,
    )
    return cast(Tensor, output.logits[:, -1].float())


def _sample_token(logits: Tensor, uniforms: Tensor | None) -> Tensor:
    """The token at which the cumulative distribution passes ``uniforms``; without them the most probable one."""
    if uniforms is None:
        return logits.argmax(-1)
    cumulative = logits.softmax(-1).double().cumsum(-1)
    threshold = uniforms[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return token.clamp(max=logits.shape[-1] - 1)
