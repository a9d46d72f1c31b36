"""Properties of every objective, whatever its family; each failure names the property and the numbers that break it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lit_align.errors import LitAlignError, PluginError
from lit_align.objectives import (
    ImplicitRewardObjective,
    Objective,
    PairwiseObjective,
    SupervisedObjective,
)
from lit_align.plugin_contracts import gradient_fault, losses_fault, name_of, reference_fault
from lit_align.plugin_failures import describe_exception, find_place
from lit_align.plugin_signatures import signature_fault
from lit_align.testing.objective_inputs import (
    Harness,
    Labels,
    Responses,
    TokenDraw,
    draw_tokens,
    make_harness,
)
from lit_align.types import Logps, PerTokenLogps

Result = TypeVar("Result")

NUM_ITEMS = 8
STEP = 1e-6  # of finite differences, in nats
EXTREME = 2e4
"""Nats: the log-probability of a response of some thousand tokens under a model that finds each of them improbable."""
BFLOAT16_TOLERANCE = 0.05
"""Relative: what bfloat16, with eight bits of precision, may lose in a few operations."""


class _Batch(NamedTuple):
    responses: Responses
    labels: Labels
    losses: Tensor


def check_objective(objective: Objective) -> None:
    """Fail unless ``objective`` behaves like a loss of its family.

    It must give one finite loss for each item, whatever their order and however extreme their log-probabilities; a
    gradient that is that of the loss (unless ``has_stop_gradient_weight``); a descent step that, at small margins,
    favours the better response; nearly the same in bfloat16; no influence of padding; no influence of the reference
    if it does not need it; and no gradient from a coin-toss label if it is ``margin_only``.

    Args:
        objective: with the settings to check it at.

    Raises:
        AssertionError: if a property does not hold.
        TypeError: if the objective belongs to no family.

    Example:
        >>> from lit_align.objectives.dpo import DPO
        >>> check_objective(DPO(beta=0.5))
    """
    hold(signature_fault(objective))
    harness = make_harness(objective)
    draws = _draw_responses(harness)
    responses = _to_responses(draws)
    labels = harness.make_labels(NUM_ITEMS)
    batch = _Batch(responses, labels, call(objective, harness.compute_losses, responses, labels))
    hold(losses_fault(objective, batch.losses, NUM_ITEMS))
    hold(gradient_fault(objective, batch.losses, responses[0].policy))
    _check_reward(objective, batch)
    _check_finite(harness)
    _check_order(objective, harness, batch)
    if not objective.has_stop_gradient_weight:
        _check_gradient(objective, harness, draws, labels)
    _check_descent(harness)
    if not objective.needs_reference and not isinstance(objective, SupervisedObjective):
        _check_reference_unused(objective, harness, batch)
    _check_bfloat16(harness)
    if objective.token_fields:
        _check_padding(harness, batch)
    if isinstance(objective, PairwiseObjective) and objective.margin_only:
        _check_coin_toss(harness)


def call(plugin: object, function: Callable[..., Result], *args: Any) -> Result:
    """``function(*args)``; an exception in the plugin's code fails the check with its file, line and words.

    Args:
        plugin: whose code runs.
        function: to call.
        args: its arguments.
    """
    try:
        return function(*args)
    except PluginError as error:
        raise AssertionError(str(error)) from error
    except LitAlignError:
        raise
    except Exception as error:
        place = find_place(error)
        at_place = f" at {place}" if place else ""
        raise AssertionError(
            f"{name_of(plugin)} failed{at_place}: {describe_exception(error)}"
        ) from error


def hold(fault: str) -> None:
    """Fail with the sentence of a promise that does not hold; an empty one passes."""
    require(not fault, fault)


def require(condition: bool, message: str) -> None:
    """Fail with ``message`` unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _require_close(actual: Tensor, expected: Tensor, message: str, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(
        actual,
        expected,
        rtol=tolerance,
        atol=tolerance,
        msg=lambda details: f"{message}\n{details}",
        check_dtype=False,
    )


def _to_responses(draws: list[TokenDraw]) -> Responses:
    return tuple(draw.to_logps() for draw in draws)


def _gradients(losses: Tensor, draws: list[TokenDraw]) -> list[Tensor]:
    """Gradient of the summed losses by each token's log-probability, ``[items, tokens]`` for each response."""
    require(losses.requires_grad, "the loss has no gradient")
    return list(
        torch.autograd.grad(
            losses.sum(),
            [draw.policy for draw in draws],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def _check_finite(harness: Harness) -> None:
    """Loss and gradient in single precision, at log-probabilities as far apart as they may get."""
    extremes = torch.tensor([-EXTREME, -1e-3])
    num_columns = 2 * len(harness.names)  # policy and reference of each response
    corners = torch.cartesian_prod(*[extremes] * num_columns)
    num_items = len(corners)
    length = torch.full((num_items,), 2)
    draws = []
    for policy_logp, reference_logp in torch.split(corners.T, 2):
        policy = _spread_over_two_tokens(policy_logp).requires_grad_()
        reference = _spread_over_two_tokens(reference_logp)
        draws.append(TokenDraw(policy, reference, length))
    labels = harness.make_labels(num_items)
    losses = harness.compute_losses(_to_responses(draws), labels)
    _require_finite(losses, "a loss")
    for gradient in _gradients(losses, draws):
        _require_finite(gradient, "a gradient")


def _spread_over_two_tokens(logp: Tensor) -> Tensor:
    halves = logp[:, None] / 2
    return halves.expand(len(logp), 2).clone()


def _require_finite(values: Tensor, name: str) -> None:
    require(
        bool(values.isfinite().all()),
        f"{name} is not finite at extreme log-probabilities: {values.tolist()}",
    )


def _check_order(objective: Objective, harness: Harness, batch: _Batch) -> None:
    """The loss of an item does not depend on its position or, unless the objective says so, on other items."""
    order = torch.arange(len(batch.losses)).flip(0)
    reordered = _losses_at(harness, batch, order)
    if objective.couples_batch:
        message = "the loss of the batch depends on the order of its items"
        _require_close(reordered.sum(), batch.losses.sum(), message)
        return
    message = "the loss of an item depends on its position in the batch"
    _require_close(reordered, batch.losses[order], message)
    separate = torch.cat([_losses_at(harness, batch, index) for index in torch.split(order, 1)])
    message = "the loss of an item depends on the others; set couples_batch = True"
    _require_close(separate, batch.losses[order], message)


def _losses_at(harness: Harness, batch: _Batch, index: Tensor) -> Tensor:
    """Losses of a batch of the items at ``index`` alone."""
    responses = tuple(logps.take(index) for logps in batch.responses)
    labels = tuple(label[index] for label in batch.labels)
    return harness.compute_losses(responses, labels)


def _check_gradient(
    objective: Objective, harness: Harness, draws: list[TokenDraw], labels: Labels
) -> None:
    """The gradient against finite differences of the loss, by the first and by the last token of each response."""
    losses = harness.compute_losses(_to_responses(draws), labels)
    gradients = _gradients(losses, draws)
    for index, gradient in enumerate(gradients):
        message = (
            f"the gradient of the {harness.names[index]} response is not that of the loss "
            "(is something detached?)"
        )
        length = draws[index].length
        for place in (torch.zeros_like(length), length - 1):
            direction = torch.nn.functional.one_hot(place, gradient.shape[1])
            raised = _shifted_losses(harness, draws, labels, index, STEP * direction)
            lowered = _shifted_losses(harness, draws, labels, index, -STEP * direction)
            expected = (raised - lowered) / (2 * STEP)
            actual = (gradient * direction).sum(1)
            if objective.couples_batch:
                expected, actual = expected.sum(), actual.sum()
            _require_close(actual, expected, message, tolerance=1e-5)


def _shifted_losses(
    harness: Harness, draws: list[TokenDraw], labels: Labels, index: int, shift: Tensor
) -> Tensor:
    """Losses with ``shift`` added to the log-probabilities of the response at ``index``."""
    shifted = []
    for number, draw in enumerate(draws):
        policy = draw.policy.detach()
        if number == index:
            policy = policy + shift
        shifted.append(draw._replace(policy=policy))
    losses = harness.compute_losses(_to_responses(shifted), labels)
    return losses.detach()


def _check_descent(harness: Harness) -> None:
    """Close to the reference, gradient descent raises the better response in comparison to the other ones."""
    draws = _draw_near_reference(len(harness.names))
    num_items = len(draws[0].length)
    labels = harness.make_labels(num_items)
    losses = harness.compute_losses(_to_responses(draws), labels)
    steps = [-gradient.sum(1) for gradient in _gradients(losses, draws)]
    directions = harness.directions(num_items)

    gains = torch.zeros(num_items)
    for step, direction in zip(steps, directions, strict=True):
        gains = gains + step * direction
    names = " or ".join(harness.names)
    wrong_way = f"a descent step moves a {names} response the wrong way at small margins"
    require(bool((gains >= -1e-12).all()), f"{wrong_way}: gains are {gains.tolist()}")
    require(bool((gains > 0).any()), "a descent step changes nothing at small margins")
    if len(steps) == 1:
        require(bool((gains >= 0).all()), f"{wrong_way}: gains are {gains.tolist()}")

    compared = pairwise(zip(steps, directions, strict=True))
    for (step, direction), (next_step, next_direction) in compared:
        is_favoured = step >= next_step - 1e-12
        may_be_behind = direction < next_direction
        require(
            bool((is_favoured | may_be_behind).all()),
            f"a descent step does not favour the {harness.names[0]} response at small margins: "
            f"it gains {step.tolist()}, the next response {next_step.tolist()}",
        )


def _draw_near_reference(num_responses: int, num_items: int = 9) -> list[TokenDraw]:
    """Responses of four tokens whose log-ratios are within a few 1e-4 nats."""
    reference = torch.linspace(-10.0, -5.0, num_items, dtype=torch.float64)
    reference = reference[:, None].expand(num_items, 4).clone()
    log_ratio = torch.linspace(-1e-4, 1e-4, num_items, dtype=torch.float64)
    length = torch.full((num_items,), 4)
    draws = []
    for number in range(num_responses):
        policy = reference + log_ratio[:, None] * number
        draws.append(TokenDraw(policy.requires_grad_(), reference, length))
    return draws


def _check_reward(objective: Objective, batch: _Batch) -> None:
    """The implicit reward is a number for each response."""
    if isinstance(objective, ImplicitRewardObjective):
        rewards = call(objective, objective.implicit_reward, batch.responses[0])
        is_one_each = isinstance(rewards, Tensor) and len(rewards) == len(batch.responses[0].policy)
        require(
            is_one_each, f"{name_of(objective)}.implicit_reward gives no number for each response"
        )


def _check_reference_unused(objective: Objective, harness: Harness, batch: _Batch) -> None:
    """Neither loss nor implicit reward reads the reference."""
    without_reference = tuple(_drop_reference(logps) for logps in batch.responses)
    rewards = []
    if isinstance(objective, ImplicitRewardObjective):
        rewards = [objective.implicit_reward(logps).sum() for logps in without_reference]
    losses = harness.compute_losses(without_reference, batch.labels)
    hold(reference_fault(objective, batch.losses, losses, rewards))


def _drop_reference(logps: Logps) -> Logps:
    missing = torch.full_like(logps.reference, float("nan"))
    tokens = logps.tokens and logps.tokens._replace(reference=None)
    return logps._replace(reference=missing, tokens=tokens)


def _check_bfloat16(harness: Harness) -> None:
    """Loss and gradient in bfloat16 against double precision, at numbers that both hold exactly."""
    message = "the loss or gradient in bfloat16 differs from that in double precision"
    rough_values = _losses_and_gradients(harness, torch.bfloat16)
    exact_values = _losses_and_gradients(harness, torch.float64)
    for rough, exact in zip(rough_values, exact_values, strict=True):
        scale = 1 + exact.abs().max()
        _require_close(rough / scale, exact / scale, message, tolerance=BFLOAT16_TOLERANCE)


def _losses_and_gradients(harness: Harness, dtype: torch.dtype) -> list[Tensor]:
    draws = _draw_responses(harness, dtype)
    labels = harness.make_labels(NUM_ITEMS)
    losses = harness.compute_losses(_to_responses(draws), labels)
    values = [losses, *_gradients(losses, draws)]
    return [value.double() for value in values]


def _draw_responses(harness: Harness, dtype: torch.dtype = torch.float64) -> list[TokenDraw]:
    num_responses = len(harness.names)
    return [draw_tokens(NUM_ITEMS, seed, dtype) for seed in range(num_responses)]


def _check_padding(harness: Harness, batch: _Batch) -> None:
    padded = tuple(logps._replace(tokens=_pad(logps.tokens)) for logps in batch.responses)
    losses = harness.compute_losses(padded, batch.labels)
    _require_close(losses, batch.losses, "padding of the responses changes the loss")


def _pad(tokens: PerTokenLogps | None) -> PerTokenLogps:
    assert tokens is not None
    padded = {
        name: torch.nn.functional.pad(values, (0, 3))
        for name, values in tokens._asdict().items()
        if values is not None
    }
    return PerTokenLogps(**padded)


def _check_coin_toss(harness: Harness) -> None:
    """Between equal responses the gradients of the two orders of a pair cancel."""
    first, second = draw_tokens(NUM_ITEMS, seed=0), draw_tokens(NUM_ITEMS, seed=0)
    chosen, rejected = first.to_logps(), second.to_logps()
    losses = harness.compute_losses((chosen, rejected), ())
    flipped_losses = harness.compute_losses((rejected, chosen), ())
    message = "margin_only is True, but a coin-toss label has a gradient at equal responses"
    for gradient in _gradients(losses + flipped_losses, [first, second]):
        _require_close(gradient, torch.zeros_like(gradient), message)
