"""KL penalty against the reference policy, fixed or adaptive (Ziegler et al., 2019, https://arxiv.org/abs/1909.08593)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_align.errors import ConfigError

MAX_RELATIVE_ERROR = 0.2
"""Beyond this distance from its target, the KL divergence moves the coefficient no faster."""


@dataclass
class KLControl:
    """KL penalty against the reference policy.

    Args:
        coefficient: β: reward that one nat of KL divergence costs.
        where: subtracted from the ``reward`` of each token, or added as a term of the ``loss``.
        estimator: of a token's divergence; as a loss k2, which has the right gradient, or k3, but not k1.
        target: nats per response that an adaptive coefficient aims at; null keeps the coefficient fixed.
        horizon: responses over which the coefficient may change by a fifth.
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
                f"kl.target is {self.target}, kl.coefficient {self.coefficient} and kl.horizon {self.horizon}; with a "
                "target, all must be positive"
            )

    def adapt(self, coefficient: float, measured: float, num_responses: int) -> float:
        """Coefficient for the next iteration: raised above the target, lowered below it (section 2.2).

        Args:
            coefficient: β of this iteration.
            measured: KL divergence of this iteration, in nats per response.
            num_responses: responses it was measured on.

        Example:
            Twice the target, beyond the clip; 100 responses of a horizon of 10 000 raise β by 0.2 %.

            >>> round(KLControl(target=6.0).adapt(0.1, 12.0, 100), 6)
            0.1002
        """
        if self.target is None:
            return coefficient
        relative_error = measured / self.target - 1
        clipped_error = max(-MAX_RELATIVE_ERROR, min(MAX_RELATIVE_ERROR, relative_error))
        return coefficient * (1 + clipped_error * min(1.0, num_responses / self.horizon))
