"""Checks that every embedder must pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.orca.embedders import Embedder
from lit_align.orca.modalities import InputSpec, collate
from lit_align.orca.types import BackboneSpec, Embedded, TokenStats
from lit_align.plugin_signatures import signature_fault
from lit_align.testing.objective_checks import call, hold, require

D_MODEL, MAX_TOKENS = 24, 4096


def check_embedder(embedder: Embedder, kind: str, inputs: Sequence[Tensor]) -> None:
    """Fail unless ``embedder`` makes of each input the announced tokens, whatever else is in the batch.

    Padding must not count, nor other inputs of the batch; every weight must get a gradient; and
    after ``match_stats`` tokens must have the backbone's mean and deviation.

    Args:
        embedder: with the settings to check it at, not attached yet.
        kind: of the inputs.
        inputs: two or more, channels first, of different lengths if the modality has such.

    Raises:
        AssertionError: if a check fails.

    Example:
        >>> from lit_align.orca.embedders.patches import Patches
        >>> check_embedder(Patches(size=4), "series", [torch.randn(2, 9), torch.randn(2, 5)])
    """
    name = type(embedder).__name__
    spec = InputSpec.from_inputs(kind, inputs)
    stats = _random_stats()
    hold(signature_fault(embedder))
    call(embedder, embedder.attach, spec, BackboneSpec(D_MODEL, MAX_TOKENS, stats))
    x, mask = collate(inputs)
    embedded = call(embedder, embedder, x, mask)
    _check_shapes(name, embedded, len(x), embedder.n_tokens(spec))
    for row, values in enumerate(inputs):
        tokens = embedded.tokens[row][embedded.mask[row]]
        by_itself = embedder(*collate([values]))
        _check_same(name, tokens, by_itself.tokens[by_itself.mask])
    embedded.tokens.pow(2).sum().backward()
    unused = []
    for weight_name, weight in embedder.named_parameters():
        if weight.grad is None:
            unused.append(weight_name)
    require(not unused, f"{name} has weights that get no gradient: {', '.join(unused)}")
    embedder.match_stats(stats, x, mask)
    tokens = embedder(x, mask).tokens[embedded.mask]
    _check_stats(name, tokens.detach(), stats)


def _random_stats() -> TokenStats:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(D_MODEL, generator=generator)
    std = torch.rand(D_MODEL, generator=generator) + 0.5
    return TokenStats(mean, std)


def _check_shapes(name: str, embedded: Embedded, num_inputs: int, num_tokens: int) -> None:
    """The announced number of finite tokens, and at least one for each input."""
    tokens, mask, _ = embedded
    expected_mask = (num_inputs, num_tokens)
    expected_tokens = (*expected_mask, D_MODEL)
    require(
        tokens.shape == expected_tokens and mask.shape == expected_mask,
        f"{name} announces {num_tokens} tokens of {D_MODEL} numbers, and makes tokens {list(tokens.shape)} and a mask "
        f"{list(mask.shape)}",
    )
    require(mask.dtype == torch.bool, f"{name} makes a mask of {mask.dtype}; it is boolean")
    has_tokens = mask.any(1).all()
    require(bool(has_tokens), f"{name} makes no token of an input")
    is_finite = tokens.isfinite().all()
    require(bool(is_finite), f"{name} makes a token that is not finite")


def _check_same(name: str, in_batch: Tensor, by_itself: Tensor) -> None:
    """The tokens of an input ``[tokens, d_model]`` are the same in a batch and by itself."""
    is_same = in_batch.shape == by_itself.shape
    if is_same:
        is_same = torch.allclose(in_batch, by_itself, rtol=1e-4, atol=1e-5)
    require(is_same, f"in {name} the rest of the batch changes the tokens of an input")


def _check_stats(name: str, tokens: Tensor, stats: TokenStats) -> None:
    """Tokens have the mean and the deviation of ``stats``."""
    std, mean = torch.std_mean(tokens, 0, correction=0)
    errors = {"mean": mean - stats.mean, "std": std - stats.std}
    for moment, difference in errors.items():
        error = float(difference.abs().max())
        require(
            error < 1e-3,
            f"after match_stats the {moment} of {name}'s tokens is {error:g} off the backbone's",
        )
