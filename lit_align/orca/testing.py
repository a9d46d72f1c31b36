"""What every embedder must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_align.orca.embedders import Embedder
from lit_align.orca.modalities import InputSpec, collate
from lit_align.orca.types import BodySpec, Embedded, Stats
from lit_align.testing.objective_checks import require

WIDTH, ROOM = 24, 4096


def check_embedder(embedder: Embedder, kind: str, inputs: Sequence[Tensor]) -> None:
    """Fail unless ``embedder`` makes of each input the tokens that it announced, whatever stands beside it.

    Padding must not count, nor other inputs of the batch; every weight must get a gradient; and
    after ``init_from`` tokens must have the moments of the body's.

    Args:
        embedder: with the settings to check it at, not attached yet.
        kind: what the inputs are.
        inputs: two or more, channels first, of different lengths if the modality has such.

    Raises:
        AssertionError: if a promise is broken.

    Example:
        >>> from lit_align.orca.embedders.patches import Patches
        >>> check_embedder(Patches(size=4), "series", [torch.randn(2, 9), torch.randn(2, 5)])
    """
    name, spec = type(embedder).__name__, InputSpec.of(kind, inputs)
    draw = torch.Generator().manual_seed(0)
    stats = Stats(torch.randn(WIDTH, generator=draw), torch.rand(WIDTH, generator=draw) + 0.5)
    embedder.attach(spec, BodySpec(WIDTH, ROOM, stats))
    x, mask = collate(inputs)
    found, count = embedder(x, mask), embedder.n_tokens(spec)
    shapes = list(found.tokens.shape), list(found.mask.shape)
    wanted = [len(x), count, WIDTH], [len(x), count]
    require(
        shapes == wanted,
        f"{name} announces {count} tokens of {WIDTH} numbers, and gives {shapes[0]}, {shapes[1]}",
    )
    require(
        found.mask.dtype == torch.bool and bool(found.mask.any(1).all()),
        f"{name} makes no token of an input",
    )
    require(bool(found.tokens.isfinite().all()), f"{name} makes a token that is not finite")
    for row, one in enumerate(inputs):
        alone = embedder(*collate([one]))
        taken = Embedded(found.tokens[row : row + 1], found.mask[row : row + 1])
        _same(name, "what stands beside it", taken, alone)
    found.tokens.pow(2).sum().backward()
    idle = [key for key, weight in embedder.named_parameters() if weight.grad is None]
    require(not idle, f"{name} has weights that get no gradient: {', '.join(idle)}")
    embedder.init_from(stats, x, mask)
    tokens = embedder(x, mask).tokens[found.mask].detach()
    for what, now, body in (
        ("mean", tokens.mean(0), stats.mean),
        ("std", tokens.std(0, correction=0), stats.std),
    ):
        far = float((now - body).abs().max())
        require(
            far < 1e-3, f"after init_from the {what} of {name}'s tokens is {far:g} off the body's"
        )


def _same(name: str, what: str, one: Embedded, other: Embedded) -> None:
    """The tokens that there are, without those that are not."""
    here, there = one.tokens[one.mask], other.tokens[other.mask]
    alike = here.shape == there.shape and torch.allclose(here, there, rtol=1e-4, atol=1e-5)
    require(alike, f"in {name} {what} changes the tokens of an input")
