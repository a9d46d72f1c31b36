"""What every objective and every format must satisfy; a plugin's test is one call.

They fail with a sentence that says which promise is broken, and for which numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.batches import Group, Logps, Pair
from lit_align.data.formats import Format, Row
from lit_align.objectives import Objective, PairwiseObjective

STEP = 1e-6
EXTREME = 2e4
"""Nats: what a response of some thousand tokens costs under a model that finds each of them absurd."""


def check_objective(objective: Objective, pairs: int = 8) -> None:
    """Fail unless ``objective`` behaves like a loss over comparisons.

    It must give one finite loss for each pair, whatever the order of the pairs and however extreme their
    log-probabilities; a gradient that is that of the loss; a descent that, at a small margin, lowers no chosen response
    and raises no rejected one; and it must not read the reference if it says that it needs none.

    Args:
        objective: with the settings to check it at.
        pairs: how many random pairs to check it on.

    Raises:
        AssertionError: if a promise is broken.
        TypeError: if the objective is not over comparisons.

    Example:
        >>> from lit_align.objectives.dpo import DPO
        >>> check_objective(DPO(beta=0.5))
    """
    if not isinstance(objective, PairwiseObjective):
        raise TypeError(
            f"check_objective checks losses over comparisons, and {type(objective).__name__} is not a PairwiseObjective"
        )
    chosen, rejected = (_random(pairs, seed) for seed in (0, 1))
    losses = objective(chosen, rejected)
    if losses.shape != (pairs,):
        raise AssertionError(f"expected a loss for each of {pairs} pairs, got shape {tuple(losses.shape)}")
    _check_finite(objective)
    _check_order(objective, chosen, rejected, losses)
    _check_gradient(objective, chosen, rejected)
    _check_descent(objective)
    _check_reference(objective, chosen, rejected, losses)


def check_format(layout: Format, row: Row) -> Group:
    """Fail unless ``layout`` recognises ``row`` and makes a sound group of it; the group, to look at.

    Args:
        layout: the format to check.
        row: a row that it should read.

    Raises:
        AssertionError: if a promise is broken.

    Example:
        >>> from lit_align.data.formats.alpaca import Alpaca
        >>> check_format(Alpaca(), {"instruction": "Name a bird.", "output": "Owl."}).responses
        [[{'role': 'assistant', 'content': 'Owl.'}]]
    """
    name = type(layout).__name__
    _require(bool(layout.gives) and layout.gives <= {"pairs", "demonstrations", "desirable"}, f"{name}.gives is wrong")
    _require(layout.recognises(row) is True, f"{name} does not recognise the row")
    _require(layout.recognises({}) is False, f"{name} recognises a row without columns")
    before = repr(row)
    group = layout(row)
    _require(repr(row) == before, f"{name} changes the row it is given")
    _require(layout(row) == group, f"{name} makes another group of the same row")
    _require(bool(group.prompt) or group.prompt == "", f"{name} leaves the messages of the prompt empty")
    _require(bool(group.responses) and all(group.responses), f"{name} gives no response, or an empty one")
    count = len(group.responses)
    for pair in group.pairs:
        _check_pair(name, pair, count)
    _require(len(group.desirable) in (0, count), f"{name} gives {len(group.desirable)} thumbs to {count} responses")
    _require(not group.pairs or "pairs" in layout.gives, f"{name} gives pairs, but {name}.gives does not say so")
    _require(
        not group.desirable or "desirable" in layout.gives, f"{name} gives thumbs, but {name}.gives does not say so"
    )
    return group


def _check_pair(name: str, pair: Pair, count: int) -> None:
    sides = {pair.better, pair.worse}
    _require(len(sides) == 2 and sides <= set(range(count)), f"{name} compares {pair}, of {count} responses")
    _require(0.5 < pair.probability <= 1, f"{name} gives {pair} a probability that is not over 0.5 and up to 1")


def _check_finite(objective: PairwiseObjective) -> None:
    """Loss and gradient in single precision, at log-probabilities as far apart as they may get."""
    far = [-EXTREME, -1e-3, -EXTREME, -1e-3]
    chosen = Logps(torch.tensor(far, requires_grad=True), torch.tensor(far[::-1]), torch.full((4,), 1000))
    rejected = Logps(torch.tensor([-1e-3, -EXTREME, -EXTREME, -1e-3], requires_grad=True), *chosen[1:])
    losses = objective(chosen, rejected)
    _require(bool(losses.isfinite().all()), f"a loss is not finite at extreme log-probabilities: {losses.tolist()}")
    for gradient in _gradients(losses, chosen, rejected):
        _require(
            bool(gradient.isfinite().all()),
            f"a gradient is not finite at extreme log-probabilities: {gradient.tolist()}",
        )


def _check_order(objective: PairwiseObjective, chosen: Logps, rejected: Logps, losses: Tensor) -> None:
    if objective.couples_batch:
        return
    order = torch.arange(len(losses)).flip(0)
    _close(
        objective(chosen.take(order), rejected.take(order)),
        losses[order],
        "the loss of a pair depends on where it stands in the batch",
    )
    alone = torch.cat([objective(chosen.take(one), rejected.take(one)) for one in torch.split(order, 1)])
    _close(alone, losses[order], "the loss of a pair depends on the others; say couples_batch = True")


def _check_gradient(objective: PairwiseObjective, chosen: Logps, rejected: Logps) -> None:
    """The gradient against finite differences of the loss, in double precision."""
    sides = [chosen, rejected]
    for at, gradient in enumerate(_gradients(objective(chosen, rejected), chosen, rejected)):
        moved = [
            objective(*(_move(side, step) if k == at else side for k, side in enumerate(sides))).detach()
            for step in (STEP, -STEP)
        ]
        if objective.couples_batch:
            moved, gradient = [loss.sum() for loss in moved], gradient.sum()
        which = ("chosen", "rejected")[at]
        message = f"the gradient of the {which} response is not that of the loss (is something detached?)"
        _close(gradient, (moved[0] - moved[1]) / (2 * STEP), message, tolerance=1e-5)


def _check_descent(objective: PairwiseObjective) -> None:
    """The direction of learning where the policy has barely left the reference."""
    start = torch.linspace(-40.0, -20.0, 8, dtype=torch.float64)
    small = torch.linspace(-1e-3, 1e-3, 8, dtype=torch.float64)
    length = torch.full((8,), 20)
    chosen = Logps((start + small).requires_grad_(), start, length)
    rejected = Logps(start.clone().requires_grad_(), start, length)
    up, down = _gradients(objective(chosen, rejected), chosen, rejected)
    _require(bool((up <= 0).all()), "descending lowers a chosen response")
    _require(bool((down >= 0).all()), "descending raises a rejected response")
    _require(bool((up < 0).any() or (down > 0).any()), "descending changes nothing")


def _check_reference(objective: PairwiseObjective, chosen: Logps, rejected: Logps, losses: Tensor) -> None:
    if objective.needs_reference:
        return
    nothing = torch.full_like(losses.detach(), float("nan"))
    blind = [side._replace(reference=nothing) for side in (chosen, rejected)]
    _close(objective(*blind), losses, "needs_reference is False, but the reference changes the loss")
    _require(
        all(bool(objective.reward(side).isfinite().all()) for side in blind),
        "needs_reference is False, but the reference changes the reward",
    )


def _random(pairs: int, seed: int) -> Logps:
    draw = torch.Generator().manual_seed(seed)
    length = torch.randint(5, 50, (pairs,), generator=draw)
    policy, reference = (-torch.rand(pairs, generator=draw, dtype=torch.float64) * length for _ in range(2))
    return Logps(policy.requires_grad_(), reference, length)


def _gradients(losses: Tensor, chosen: Logps, rejected: Logps) -> tuple[Tensor, Tensor]:
    """Of the summed loss with respect to the policy, each ``[pairs]``; zero where it does not enter."""
    _require(losses.requires_grad, "the loss has no gradient: it does not depend on the policy, or is detached")
    up, down = torch.autograd.grad(
        losses.sum(), [chosen.policy, rejected.policy], allow_unused=True, materialize_grads=True
    )
    return up, down


def _move(side: Logps, step: float) -> Logps:
    return side._replace(policy=side.policy.detach() + step)


def _close(found: Tensor, wanted: Tensor, message: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        found, wanted, rtol=tolerance, atol=tolerance, msg=lambda details: f"{message}\n{details}", check_dtype=False
    )


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
