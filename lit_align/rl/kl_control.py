"""The price of leaving the reference (Ziegler et al., 2019, https://arxiv.org/abs/1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_align.errors import ConfigError


@dataclass
class KLControl:
    """The price of leaving the reference.

    Args:
        coefficient: β: what a nat costs, in reward.
        where: paid token by token out of the ``reward``, or as a term of the ``loss``.
        estimator: of a token's divergence; as a loss k2, which has the right gradient, or k3, but not k1.
        target: nats a response at which the coefficient is held by moving it; null leaves it as it is.
        horizon: responses over which it may move by a fifth.
    """

    coefficient: float = 0.05
    where: Literal["reward", "loss"] = "reward"
    estimator: Literal["k1", "k2", "k3"] = "k1"
    target: float | None = None
    horizon: int = 10_000

    def __post_init__(self) -> None:
        if self.where == "loss" and self.estimator == "k1":
            raise ConfigError(
                "kl.estimator is k1, whose gradient as a loss is zero on average, so nothing would hold the policy; "
                "set it to k2, or to k3 as in GRPO"
            )
        if self.target is not None and not min(self.target, self.coefficient, self.horizon) > 0:
            raise ConfigError(
                f"kl.target is {self.target}, kl.coefficient {self.coefficient} and kl.horizon {self.horizon}; where "
                "there is a target, all must be over 0"
            )

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
