"""Efficient Exact Optimization (Ji et al., 2024, https://arxiv.org/abs/2402.00856)."""

from dataclasses import dataclass
from math import log, log1p
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class EXO(PairwiseObjective):
    r"""Fit the policy's belief about a pair to the label's by reverse divergence, where DPO uses the forward one.

    .. math:: q\log\tfrac{q}{1 - \varepsilon} + (1 - q)\log\tfrac{1 - q}{\varepsilon}, \quad
        q = \sigma\big(\beta\log\tfrac{\pi_w}{\rho_w} - \beta\log\tfrac{\pi_l}{\rho_l}\big) \quad \text{(eq. 16)}

    It is least, and 0, where the margin of rewards is log (1 - ε) / ε, and rises again beyond. A pair that is far on
    the wrong side has q near 0 and hardly any gradient.

    Args:
        beta: pull towards the reference; β_π of the paper.
        label_smoothing: ε, the chance that a label is wrong, over 0 and under 0.5; the paper uses 0.001.

    Raises:
        ValueError: if beta is not positive, or label_smoothing is no such chance.

    Example:
        At a margin of 0, q is 1/2: half of log(0.5 / 0.8) + log(0.5 / 0.2), which is log 1.25.

        >>> EXO(label_smoothing=0.2)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-20.0], [-20.0]))
        tensor([0.2231])
    """

    symmetric: ClassVar[bool] = True

    beta: float = 0.1
    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}; 0.1 to 0.5 is usual")
        if not 0 < self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing must be over 0 and under 0.5, got {self.label_smoothing}; the paper uses 0.001"
            )

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.reward(chosen) - self.reward(rejected)
        right = torch.sigmoid(margin) * (logsigmoid(margin) - log1p(-self.label_smoothing))
        wrong = torch.sigmoid(-margin) * (logsigmoid(-margin) - log(self.label_smoothing))
        return right + wrong


@hookimpl
def register_objectives(register: Register) -> None:
    register(EXO)
