"""What every objective promises, whatever its family; each failure says which promise is broken, and where."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lit_align.objectives import Objective, PairwiseObjective, SupervisedObjective
from lit_align.testing.objective_inputs import Family, Labels, Sides, drawn, family, side
from lit_align.types import Logps, PerTokenLogps

STEP = 1e-6
EXTREME = 2e4
"""Nats: what a response of some thousand tokens costs under a model that finds each of them absurd."""
ROUGH = 0.05
"""Relative: what bfloat16, of eight bits, may lose in some operations."""


def check(objective: Objective, items: int = 8) -> None:
    """Fail unless ``objective`` keeps every promise of its family."""
    kind = family(objective)
    draws = [drawn(items, seed) for seed in range(len(kind.sides))]
    sides, labels = tuple(side(*draw) for draw in draws), kind.labels(items)
    losses = kind.losses(sides, labels)
    require(
        losses.shape == (items,),
        f"expected a loss for each of {items} items, got shape {tuple(losses.shape)}",
    )
    _finite(kind)
    _order(objective, kind, sides, labels, losses)
    if not objective.weighs:
        _gradient(objective, kind, draws, labels)
    _descent(objective, kind)
    _reference(objective, kind, sides, labels, losses)
    _rough(objective, kind)
    if objective.per_token:
        _padding(kind, sides, labels, losses)
    if isinstance(objective, PairwiseObjective) and objective.symmetric:
        _symmetry(objective, kind)


def require(holds: bool, message: str) -> None:
    """Fail with ``message`` unless it holds."""
    if not holds:
        raise AssertionError(message)


def _close(found: Tensor, wanted: Tensor, message: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        found,
        wanted,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda details: f"{message}\n{details}",
        check_dtype=False,
    )


def _gradients(losses: Tensor, tokens: list[Tensor]) -> list[Tensor]:
    """Gradient of the summed losses by the log-probability of each token, ``[items, longest]`` for each side."""
    require(losses.requires_grad, "the loss has no gradient")
    found = torch.autograd.grad(losses.sum(), tokens, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(one) if g is None else g for one, g in zip(tokens, found, strict=True)]


def _finite(kind: Family) -> None:
    """Loss and gradient in single precision, at log-probabilities as far apart as they may get."""
    corners = torch.cartesian_prod(*[torch.tensor([-EXTREME, -1e-3])] * (2 * len(kind.sides)))
    n, length = len(corners), torch.full((len(corners),), 2)
    tokens = [
        (column[:, None] / 2).expand(n, 2).clone().requires_grad_() for column in corners.T[::2]
    ]
    references = [(column[:, None] / 2).expand(n, 2).clone() for column in corners.T[1::2]]
    sides = tuple(side(*of, length) for of in zip(tokens, references, strict=True))
    losses = kind.losses(sides, kind.labels(n))
    require(
        bool(losses.isfinite().all()),
        f"a loss is not finite at extreme log-probabilities: {losses.tolist()}",
    )
    for gradient in _gradients(losses, tokens):
        message = f"a gradient is not finite at extreme log-probabilities: {gradient.tolist()}"
        require(bool(gradient.isfinite().all()), message)


def _order(
    objective: Objective, kind: Family, sides: Sides, labels: Labels, losses: Tensor
) -> None:
    order = torch.arange(len(losses)).flip(0)
    turned = _taken(kind, sides, labels, order)
    if objective.couples_batch:
        _close(
            turned.sum(), losses.sum(), "the loss of the batch depends on the order of its items"
        )
        return
    _close(turned, losses[order], "the loss of an item depends on where it stands in the batch")
    alone = torch.cat([_taken(kind, sides, labels, one) for one in torch.split(order, 1)])
    _close(
        alone, losses[order], "the loss of an item depends on the others; say couples_batch = True"
    )


def _taken(kind: Family, sides: Sides, labels: Labels, index: Tensor) -> Tensor:
    return kind.losses(
        tuple(one.take(index) for one in sides), tuple(label[index] for label in labels)
    )


def _gradient(
    objective: Objective, kind: Family, draws: list[tuple[Tensor, Tensor, Tensor]], labels: Labels
) -> None:
    """The gradient against finite differences of the loss, by the first and by the last token of each response."""
    tokens = [draw[0] for draw in draws]
    found = _gradients(kind.losses(tuple(side(*draw) for draw in draws), labels), tokens)
    for at, (gradient, (_, _, length)) in enumerate(zip(found, draws, strict=True)):
        for place in (torch.zeros_like(length), length - 1):
            there = torch.nn.functional.one_hot(place, tokens[at].shape[1])
            moved = []
            for step in (STEP, -STEP):
                shifted = [
                    (draw[0].detach() + step * there * (k == at), *draw[1:])
                    for k, draw in enumerate(draws)
                ]
                moved.append(kind.losses(tuple(side(*draw) for draw in shifted), labels).detach())
            by_item, of_item = (moved[0] - moved[1]) / (2 * STEP), (gradient * there).sum(1)
            if objective.couples_batch:
                by_item, of_item = by_item.sum(), of_item.sum()
            message = f"the gradient of the {kind.sides[at]} response is not that of the loss (is something detached?)"
            _close(of_item, by_item, message, tolerance=1e-5)


def _descent(objective: Objective, kind: Family) -> None:
    """The direction of learning where the policy has barely left the reference: what is better gains on the rest."""
    n = 9
    start = torch.linspace(-10.0, -5.0, n, dtype=torch.float64)[:, None].expand(n, 4).clone()
    near = torch.linspace(-1e-4, 1e-4, n, dtype=torch.float64)[:, None]
    tokens = [(start + near * k).requires_grad_() for k in range(len(kind.sides))]
    sides = tuple(side(one, start, torch.full((n,), 4)) for one in tokens)
    pulls = [-g.sum(1) for g in _gradients(kind.losses(sides, kind.labels(n)), tokens)]
    better = kind.better(n)
    gains = sum((pull * sign for pull, sign in zip(pulls, better, strict=True)), torch.zeros(n))
    names = " or ".join(kind.sides)
    require(
        bool((gains >= -1e-12).all()),
        f"descending moves a {names} response the wrong way at small margins",
    )
    require(bool((gains > 0).any()), "descending changes nothing at small margins")
    for (above, more), (below, less) in pairwise(zip(pulls, better, strict=True)):
        favours = (above >= below - 1e-12) | (more < less)
        require(
            bool(favours.all()),
            f"descending does not favour the {kind.sides[0]} response at small margins",
        )
    if len(pulls) == 1:
        require(
            bool((pulls[0] * better[0] >= 0).all()),
            f"descending moves a {names} response the wrong way",
        )


def _reference(
    objective: Objective, kind: Family, sides: Sides, labels: Labels, losses: Tensor
) -> None:
    if objective.needs_reference or isinstance(objective, SupervisedObjective):
        return
    blind = tuple(_blinded(one) for one in sides)
    _close(
        kind.losses(blind, labels),
        losses,
        "needs_reference is False, but the reference changes the loss",
    )
    reward = getattr(objective, "reward", None)
    for one, without in zip(sides, blind, strict=True):
        if reward is not None:
            _close(
                reward(without),
                reward(one),
                "needs_reference is False, but the reference changes the reward",
            )


def _blinded(one: Logps) -> Logps:
    nothing = torch.full_like(one.reference, float("nan"))
    return one._replace(
        reference=nothing, tokens=one.tokens and one.tokens._replace(reference=None)
    )


def _rough(objective: Objective, kind: Family) -> None:
    """Loss and gradient in bfloat16 against double precision, at numbers that both hold exactly."""
    found: list[list[Tensor]] = []
    for dtype in (torch.bfloat16, torch.float64):
        draws = [drawn(8, seed, dtype) for seed in range(len(kind.sides))]
        losses = kind.losses(tuple(side(*draw) for draw in draws), kind.labels(8))
        found.append(
            [one.double() for one in (losses, *_gradients(losses, [draw[0] for draw in draws]))]
        )
    for rough, exact in zip(*found, strict=True):
        scale = 1 + exact.abs().max()
        _close(
            rough / scale, exact / scale, "bfloat16 gives another loss or gradient", tolerance=ROUGH
        )


def _padding(kind: Family, sides: Sides, labels: Labels, losses: Tensor) -> None:
    wider = tuple(one._replace(tokens=_wider(one.tokens)) for one in sides)
    _close(
        kind.losses(wider, labels), losses, "what is behind the end of a response changes the loss"
    )


def _wider(tokens: PerTokenLogps | None) -> PerTokenLogps:
    assert tokens is not None
    more = [None if field is None else torch.nn.functional.pad(field, (0, 3)) for field in tokens]
    assert more[0] is not None
    return PerTokenLogps(more[0], *more[1:])


def _symmetry(objective: PairwiseObjective, kind: Family) -> None:
    """Between equal responses a coin toss for a label must not pull."""
    tokens, reference, length = drawn(8, 0)
    other = tokens.detach().clone().requires_grad_()
    one, two = side(tokens, reference, length), side(other, reference, length)
    both = kind.losses((one, two), ()) + kind.losses((two, one), ())
    for pull in _gradients(both, [tokens, other]):
        message = "symmetric is True, but a coin toss for a label pulls at equal responses"
        _close(pull, torch.zeros_like(pull), message)
