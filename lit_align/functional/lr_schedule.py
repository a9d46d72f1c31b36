"""Learning-rate schedules as a pure function of the step: constant, linear, cosine and warmup-stable-decay (WSD).

WSD: Hu et al., 2024, https://arxiv.org/abs/2404.06395; the others by the definitions that transformers uses.
"""

from __future__ import annotations

import math
from typing import Literal

Shape = Literal["constant", "linear", "cosine", "wsd"]


def lr_multiplier(
    step: float,
    shape: Shape,
    num_steps: int,
    num_warmup: int = 0,
    num_decay: int = 0,
    floor: float = 0.0,
) -> float:
    r"""What the learning rate of a step is multiplied by.

    With N steps, w of them warmup, d of them decay (of ``wsd``; for the others d = N - w) and a floor f, step t has

    .. math::
        m(t) = \begin{cases}
            f_w + (1 - f_w) \, t / w & t < w \\
            1 & w \le t < N - d \\
            f + (1 - f) \, c(p), \; p = \min(1, \tfrac{t - (N - d)}{d}) & t \ge N - d
        \end{cases}

    where c(p) is 1 for ``constant``, 1 - p for ``linear`` and (1 + cos πp) / 2 for ``cosine`` and ``wsd``. The warmup
    starts from f_w, which is f for ``wsd`` and 0 for the others. The last step is N - 1, a little above the floor.

    Args:
        step: steps before it, t; from 0.
        shape: of what follows the warmup.
        num_steps: steps of the run, N.
        num_warmup: steps of the warmup, w.
        num_decay: steps of the final decay of ``wsd``, d; the other shapes fall from the warmup on.
        floor: multiplier after the last step, f.

    Example:
        >>> [lr_multiplier(step, "linear", num_steps=6, num_warmup=2) for step in range(7)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
        >>> [lr_multiplier(step, "wsd", 6, 1, 2, floor=0.5) for step in range(7)]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5]
    """
    if step < num_warmup:
        start = floor if shape == "wsd" else 0.0
        return start + (1.0 - start) * step / num_warmup
    if shape == "constant":
        return 1.0
    decay_start = num_steps - num_decay if shape == "wsd" else num_warmup
    if step < decay_start:
        return 1.0
    progress = min(1.0, (step - decay_start) / max(1, num_steps - decay_start))
    remaining = 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return floor + (1.0 - floor) * remaining
