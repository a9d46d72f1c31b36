"""Sampling responses from whichever role is playing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import ModelError
from lit_align.seeding import step_seed

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class Completion(NamedTuple):
    """One sampled response.

    Args:
        ids: its tokens, the one that ended it included.
        logps: log-probability of each at the temperature it was sampled at; at 1 if it was not sampled.
        ended: whether the model ended it, rather than the limit.
    """

    ids: list[int]
    logps: list[float]
    ended: bool


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
    """Token ids of responses, ``[prompt][sample]``, without the token that ended them; see `sample`."""
    rows = sample(
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
    return [[one.ids[:-1] if one.ended else one.ids for one in row] for row in rows]


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
    """Sample responses from the full distribution; nothing is cut off by rank or mass.

    A response depends on the seed and its prompt's place, not on what shares its batch. In bfloat16 the
    log-probabilities differ from those of the training pass by up to 0.2 nats: score again before training on them.
    On-policy learning asks nobody else: what samples elsewhere need only take and give the same.

    Args:
        model: the model underneath the roles; runs in eval mode without gradient and keeps the mode it had.
        tokenizer: names the tokens that end a response.
        prompts: token ids of each prompt, at least one.
        max_new_tokens: limit of a response, the token that ends it included.
        temperature: 0 takes the likeliest token.
        samples: responses to each prompt; they share the pass over it.
        seed: of the random numbers.
        prompt_indices: of the prompts among all that are ever asked; None if these are all.
        batch_size: responses that are decoded at once; at least those to one prompt.
        token_budget: tokens of prompts that are read at once; at least those of one prompt.

    Returns:
        ``[prompt][sample]``, in the order of ``prompts``.

    Raises:
        ModelError: if a prompt is empty, or leaves no room for a response.
    """
    if not all(prompts):
        raise ModelError(
            f"prompt {[bool(p) for p in prompts].index(False)} is empty; a response must follow something"
        )
    check_context_length(model.config, max(map(len, prompts), default=0), max_new_tokens)
    prompt_indices, ends = (
        range(len(prompts)) if prompt_indices is None else prompt_indices,
        stop_ids(model, tokenizer),
    )
    longest_first = sorted(
        range(len(prompts)), key=lambda i: -len(prompts[i])
    )  # out of memory at once, or not at all
    together = max(1, batch_size // num_generations)
    found: dict[int, list[Completion]] = {}
    with _evaluating(model):
        for start in range(0, len(prompts), together):
            chosen = longest_first[start : start + together]
            luck = torch.stack(
                [
                    _draw_uniforms(seed, prompt_indices[i], num_generations, max_new_tokens)
                    for i in chosen
                ]
            ).to(model.device)
            rows = _decode(
                model, [prompts[i] for i in chosen], luck, temperature, ends, token_budget
            )
            found.update(
                {
                    i: rows[k * num_generations : (k + 1) * num_generations]
                    for k, i in enumerate(chosen)
                }
            )
    return [found[i] for i in range(len(prompts))]


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[int]:
    """Token ids of one response as they are drawn, without the token that ends it: those of `generate`.

    Nothing is held between two tokens, so another role may play meanwhile.
    """
    from transformers import DynamicCache

    cache, ends = DynamicCache(config=model.config), stop_ids(model, tokenizer)
    luck = _draw_uniforms(seed, 0, 1, max_new_tokens).to(model.device)
    ids = torch.tensor([list(prompt)], device=model.device)
    for step in range(max_new_tokens):
        seen = ids.new_ones(1, len(prompt) + step)
        at = torch.arange(seen.shape[1], device=model.device)[None, -ids.shape[1] :]
        with _evaluating(model):
            logits = _next(model, ids, seen, at, cache) / (temperature or 1.0)
            token = _draw(logits, luck[:, step] if temperature else None)
        if int(token) in ends:
            return
        yield int(token)
        ids = token[:, None]


def check_context_length(config: PreTrainedConfig, prompt: int, new: int) -> None:
    """Refuse what needs more positions than a model of these settings has.

    Args:
        config: the model's settings.
        prompt: tokens of the longest prompt.
        new: limit of a response.

    Raises:
        ModelError: naming all three numbers; models would go on with nonsense, or CUDA would fail without a reason.
    """
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or prompt + new
    if prompt + new > positions:
        raise ModelError(
            f"a prompt of {prompt} tokens and max_new_tokens {new} need {prompt + new} positions, and the model has "
            f"{positions}; lower max_new_tokens, or data.max_length, which drops longer prompts"
        )


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a response: EOS as model and tokenizer have it, and the end of a turn in the template."""
    found: set[int] = set()
    for named in (model.generation_config, model.config, tokenizer):
        ids = getattr(named, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    if tokenizer.chat_template:
        turns = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": "answer"},
        ]
        rendered = str(tokenizer.apply_chat_template(turns, tokenize=False))
        after = tokenizer.encode(rendered.rpartition("answer")[2], add_special_tokens=False)
        if after and after[0] in (*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder):
            found.add(after[0])
    return sorted(found)


def _draw_uniforms(seed: int, place: int, num_generations: int, new: int) -> Tensor:
    """A number for every token that could be drawn, ``[samples, new]``, whichever rows are dropped meanwhile."""
    random = torch.Generator().manual_seed(step_seed(seed, place) % 2**63)  # it takes no more bits
    return torch.rand(num_generations, new, generator=random, dtype=torch.float64)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()  # type: ignore[no-untyped-call]  # in train mode checkpointing would drop the cache
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _decode(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    luck: Tensor,
    temperature: float,
    ends: list[int],
    token_budget: int,
) -> list[Completion]:
    """Decode ``luck``'s ``[prompts, samples, new]`` responses together; finished ones leave the batch."""
    from transformers import DynamicCache

    device, (_, num_generations, new) = model.device, luck.shape
    luck, width = luck.flatten(0, 1), max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    ending = torch.tensor(ends, device=device)
    cache = DynamicCache(config=model.config)
    sharing = all(
        hasattr(layer, "batch_repeat_interleave") for layer in cache.layers
    )  # recurrent states cannot be copied
    if not sharing:
        ids, seen = (
            ids.repeat_interleave(num_generations, 0),
            seen.repeat_interleave(num_generations, 0),
        )
    at = (seen.cumsum(-1) - 1).clamp(min=0)
    together = (
        max(1, token_budget // width) if sharing else len(ids)
    )  # nor can they be put together
    parts = [slice(k, k + together) for k in range(0, len(ids), together)]
    caches = [cache, *(DynamicCache(config=model.config) for _ in parts[1:])]
    logits = torch.cat(
        [_next(model, ids[p], seen[p], at[p], one) for p, one in zip(parts, caches, strict=True)]
    )
    _join(caches)
    if sharing:
        cache.batch_repeat_interleave(num_generations)
        logits, seen, at = (x.repeat_interleave(num_generations, 0) for x in (logits, seen, at))
    at, live = at[:, -1:], torch.arange(len(luck), device=device)
    tokens = torch.zeros(len(luck), new, dtype=torch.long, device=device)
    logps = torch.zeros(len(luck), new, device=device)
    length, ended = torch.zeros_like(live), torch.zeros_like(live, dtype=torch.bool)
    for step in range(new):
        logits = logits / (temperature or 1.0)
        token, running = _draw(logits, luck[live, step] if temperature else None), ~ended[live]
        rows = live[running]
        tokens[rows, step], length[rows] = token[running], step + 1
        logps[rows, step] = logits.log_softmax(-1).gather(1, token[:, None])[running, 0]
        ended[rows] = torch.isin(token[running], ending)
        if step == new - 1 or ended.all():
            break
        if sharing and ended[live].any():
            keep = (~ended[live]).nonzero()[:, 0]
            live, token, seen, at = live[keep], token[keep], seen[keep], at[keep]
            cache.batch_select_indices(keep)
        seen, at = torch.cat([seen, seen.new_ones(len(seen), 1)], 1), at + 1
        logits = _next(model, token[:, None], seen, at, cache)
    return [
        Completion(t[:n], p[:n], e)
        for t, p, n, e in zip(
            tokens.tolist(), logps.tolist(), length.tolist(), ended.tolist(), strict=True
        )
    ]


def _join(caches: list[Any]) -> None:
    """Put what was read in parts into the first cache, layer by layer, so that no more than one layer is held twice."""
    for first, *others in zip(*(cache.layers for cache in caches), strict=True):
        for name in ("keys", "values") if others and first.is_initialized else ():
            setattr(first, name, torch.cat([getattr(layer, name) for layer in (first, *others)]))
            for layer in others:
                setattr(layer, name, None)


def _next(model: PreTrainedModel, ids: Tensor, seen: Tensor, at: Tensor, cache: Any) -> Tensor:
    """Logits of the next token, ``[rows, vocabulary]``, in float32."""
    known = inspect.signature(model.forward).parameters
    options = {"position_ids": at, "logits_to_keep": 1}  # not every architecture has them
    options = {name: value for name, value in options.items() if name in known}
    output = model(
        input_ids=ids, attention_mask=seen, past_key_values=cache, use_cache=True, **options
    )
    logits: Tensor = output.logits[:, -1].float()
    return logits


def _draw(logits: Tensor, luck: Tensor | None) -> Tensor:
    """The one token at ``luck`` (uniform in [0, 1)) of the cumulative distribution; the likeliest without luck."""
    if luck is None:
        return logits.argmax(-1)
    heap = logits.softmax(-1).double().cumsum(-1)
    return torch.searchsorted(heap, luck[:, None] * heap[:, -1:], right=True)[:, 0].clamp(
        max=logits.shape[-1] - 1
    )
