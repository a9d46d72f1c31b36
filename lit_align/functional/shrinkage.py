"""Maximum a posteriori estimates under a Gaussian prior: the more data there are, the less they are shrunk."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def shrunk_minimum(
    loss: Callable[[Tensor], Tensor], start: Tensor, precision: float, max_steps: int = 500
) -> Tensor:
    r"""The minimum of a convex loss plus a ridge penalty, in double precision.

    .. math:: \hat\delta = \arg\min_\delta\; \ell(\delta) + \frac{\kappa}{2} \lVert \delta \rVert^2

    With ℓ the negative log-likelihood of n observations this is the mode of the posterior of δ under
    :math:`\delta \sim N(0, I/\kappa)` (Hoerl & Kennard, 1970, https://doi.org/10.2307/1267351): ℓ grows with n and the
    penalty does not, so δ is 0 without data, and the maximum of the likelihood with very many.

    Args:
        loss: ℓ of a tensor of that shape, in double precision.
        start: a δ to begin with; the minimum is the same from each, and reached sooner from near it.
        precision: κ, above 0.
        max_steps: of L-BFGS, which ends when the gradient vanishes.

    Example:
        >>> delta = shrunk_minimum(lambda delta: 8 * (delta - 3).square().sum() / 2, torch.zeros(1), precision=4.0)
        >>> round(delta.item(), 6)  # 8 * 3 / (8 + 4)
        2.0
    """
    delta = start.double().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [delta],
        max_iter=max_steps,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        total = loss(delta) + precision / 2 * delta.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
    return delta.detach()
