"""Importance weights of tokens that another distribution than the policy's has sampled."""

from __future__ import annotations

from torch import Tensor


def truncated_importance_weights(logps: Tensor, sampler_logps: Tensor, cap: float | None) -> Tensor:
    r"""How much more probable the policy makes each token than what sampled it, at most ``cap``.

    .. math:: w_t = \min\!\left(\frac{\pi(y_t \mid x, y_{<t})}{\mu(y_t \mid x, y_{<t})},\; C\right)

    With them the mean over tokens of :math:`\mu` estimates that over tokens of :math:`\pi`, as far as a token's own
    probability goes; the cap bounds the variance (Ionides, 2008, https://doi.org/10.1198/106186008X320456; for an
    engine that samples and a trainer whose numbers differ: Yao et al., 2025, https://fengyao.notion.site/off-policy-rl).
    They have no gradient.

    Args:
        logps: log-probabilities under the policy before the update, ``[n]``.
        sampler_logps: log-probabilities under what sampled, ``[n]``.
        cap: C, over 0; None does not truncate.

    Example:
        The policy has probability 0.6 where the sampler had 0.3, 0.5 and 0.1.

        >>> import torch
        >>> policy = torch.tensor([0.6, 0.6, 0.6]).log()
        >>> truncated_importance_weights(policy, torch.tensor([0.3, 0.5, 0.1]).log(), cap=3.0)
        tensor([2.0000, 1.2000, 3.0000])
    """
    weights = (logps - sampler_logps).detach().exp()
    return weights if cap is None else weights.clamp(max=cap)
