"""How likely an order is."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.types import UNRANKED


def plackett_luce(scores: Tensor, order: Tensor, place: Tensor) -> Tensor:
    r"""Negative log-likelihood of rankings, each response drawn as the best of those that are left, ``[rankings]``.

    .. math:: -\sum_{k}\log\frac{\exp s_k}{\sum_{j:\,\text{place}_j \ge \text{place}_k}\exp s_j}

    Tied responses are each drawn from all that are left with them, which is Breslow's treatment of ties in the partial
    likelihood of Cox (1974, https://doi.org/10.2307/2529620). Responses without a place are never drawn.

    Args:
        scores: ``[responses]``.
        order: ``[rankings, K]``, responses from best to worst, -1 behind the end.
        place: ``[rankings, K]``, ascending.

    Example:
        Best of three equal ones, the others unranked: log 3. Two of two tied: log 2 each.

        >>> order = torch.tensor([[2, 0, 1], [0, 1, -1]])
        >>> place = torch.tensor([[1, UNRANKED, UNRANKED], [1, 1, UNRANKED]])
        >>> plackett_luce(torch.zeros(3), order, place).exp()
        tensor([3., 4.])
    """
    there = order >= 0
    ranked = scores[order.clamp(min=0)].masked_fill(~there, float("-inf"))
    left = (
        ranked.flip(1).logcumsumexp(1).flip(1)
    )  # log of the sum over a response and all behind it
    left = left.gather(
        1, torch.searchsorted(place.contiguous(), place.contiguous())
    )  # and over those tied with it
    drawn = there & (place != UNRANKED)
    return (left - ranked).masked_fill(~drawn, 0.0).sum(1)
