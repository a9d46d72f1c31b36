"""The price of leaving the reference (Ziegler et al., 2019, https://arxiv.org/abs/1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass
class KL:
    """The price of leaving the reference.

    Args:
        coefficient: β: what a nat costs, in reward.
        where: paid token by token out of the ``reward``, or as a term of the ``loss``.
        estimator: of a token's divergence; k2 has the right gradient as a loss.
        target: nats a response at which the coefficient is held by moving it; null leaves it as it is.
        horizon: responses over which it may move by a fifth.
    """

    coefficient: float = 0.05
    where: Literal["reward", "loss"] = "reward"
    estimator: Literal["k1", "k2", "k3"] = "k1"
    target: float | None = None
    horizon: int = 10_000

    def adapted(self, coefficient: float, measured: float, responses: int) -> float:
        """The coefficient that brings the divergence nearer to its target (section 2.2).

        Args:
            coefficient: as it was.
            measured: nats a response.
            responses: that this was measured on.

        Example:
            Twice what it should be, as far off as counts; 100 responses of 10 000 move the price by a part of 0.002.

            >>> round(KL(target=6.0).adapted(0.1, 12.0, 100), 6)
            0.1002
        """
        if self.target is None:
            return coefficient
        off = max(-0.2, min(0.2, measured / self.target - 1))
        return coefficient * (1 + off * min(1.0, responses / self.horizon))
