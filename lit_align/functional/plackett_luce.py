"""Plackett-Luce likelihood of rankings."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_align.batch_labels import UNRANKED


def plackett_luce(scores: Tensor, order: Tensor, place: Tensor) -> Tensor:
    r"""Negative log-likelihood of rankings under the Plackett-Luce model, ``[rankings]``.

    .. math:: -\sum_{k}\log\frac{\exp s_k}{\sum_{j:\,\text{place}_j \ge \text{place}_k}\exp s_j}

    Each response is drawn as the best of the remaining ones. Tied responses are each drawn from all that remain with
    them: Breslow's treatment of ties in the partial likelihood of Cox (1974, https://doi.org/10.2307/2529620).
    Responses without a place are never drawn.

    Args:
        scores: ``[responses]``.
        order: ``[rankings, K]``, responses from best to worst, -1 is padding.
        place: ``[rankings, K]``, ascending.

    Example:
        Best of three equal ones, the others unranked: log 3. Two of two tied: log 2 each.

        >>> order = torch.tensor([[2, 0, 1], [0, 1, -1]])
        >>> place = torch.tensor([[1, UNRANKED, UNRANKED], [1, 1, UNRANKED]])
        >>> plackett_luce(torch.zeros(3), order, place).exp()
        tensor([3., 4.])
    """
    is_response = order >= 0
    ranked = scores[order.clamp(min=0)].masked_fill(~is_response, float("-inf"))
    # log-sum-exp over a response and all behind it
    remaining = ranked.flip(1).logcumsumexp(1).flip(1)
    # ... and over those tied with it: the value at the first of the tie
    first_of_tie = torch.searchsorted(place.contiguous(), place.contiguous())
    remaining = remaining.gather(1, first_of_tie)
    is_drawn = is_response & (place != UNRANKED)
    return (remaining - ranked).masked_fill(~is_drawn, 0.0).sum(1)
