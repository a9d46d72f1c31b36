"""Per-token estimates of the KL divergence from samples (Schulman, 2020, http://joschu.net/blog/kl-approx.html)."""

from __future__ import annotations

from torch import Tensor


def kl_estimates(policy: Tensor, reference: Tensor) -> dict[str, Tensor]:
    r"""Estimates k1, k2 and k3 of KL(π_θ ‖ π_ref) at tokens drawn from π_θ, each of the shape of its arguments.

    .. math:: k_1 = \log\tfrac{\pi_\theta}{\pi_{ref}}, \quad k_2 = \tfrac12 k_1^2, \quad k_3 = e^{-k_1} - 1 + k_1

    The mean of k1 is unbiased, k2 has less variance but is biased, and k3 is unbiased, has low variance and is never
    negative. As a loss, where π_θ carries the gradient, only the gradient of k2 is unbiased.

    Args:
        policy: log-probabilities under π_θ.
        reference: log-probabilities under π_ref.

    Example:
        >>> import torch
        >>> estimates = kl_estimates(torch.tensor([-1.0, -1.0]), torch.tensor([0.0, -15.0]))
        >>> [value.tolist() for value in estimates.values()]
        [[-1.0, 14.0], [0.5, 98.0], [0.7182817459106445, 13.000000953674316]]
    """
    k1 = policy - reference
    return {"k1": k1, "k2": k1.square() / 2, "k3": (-k1).clamp(max=20.0).exp() - 1 + k1}
