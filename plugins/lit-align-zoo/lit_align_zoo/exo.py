"""Efficient Exact Optimization (Ji et al., 2024, https://arxiv.org/abs/2402.00856)."""

from dataclasses import dataclass
from math import log, log1p
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class EXO(PairwiseObjective):
    r"""Reverse KL between the policy's preference probability and the label's, where DPO uses forward KL.

    .. math:: q\log\tfrac{q}{1 - \varepsilon} + (1 - q)\log\tfrac{1 - q}{\varepsilon}, \quad
        q = \sigma\Big(\beta\log\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)}
        - \beta\log\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}\Big) \quad \text{(eq. 16)}

    Its minimum, 0, is where the reward margin is log((1 - ε) / ε); it rises again beyond. A pair with a large negative
    margin has q near 0 and almost no gradient.

    Args:
        beta: pull towards the reference; β_π of the paper.
        label_smoothing: ε, the probability that a label is wrong, over 0 and under 0.5; the paper uses 0.001.

    Raises:
        ConfigError: if beta is not positive, or label_smoothing is not over 0 and under 0.5.

    Example:
        At a margin of 0, q is 1/2: half of log(0.5 / 0.8) + log(0.5 / 0.2), which is log 1.25.

        >>> EXO(label_smoothing=0.2)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-20.0], [-20.0]))
        tensor([0.2231])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.1
    label_smoothing: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "0.1 to 0.5 is usual")
        if not 0 < self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing must be over 0 and under 0.5, got {self.label_smoothing}; the paper uses 0.001"
            )

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        margin = self.implicit_reward(chosen) - self.implicit_reward(rejected)
        correct_term = torch.sigmoid(margin) * (logsigmoid(margin) - log1p(-self.label_smoothing))
        flipped_term = torch.sigmoid(-margin) * (logsigmoid(-margin) - log(self.label_smoothing))
        return correct_term + flipped_term


@hookimpl
def register_objectives(register: Register) -> None:
    register(EXO)
