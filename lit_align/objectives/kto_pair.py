"""KTO on comparisons (Ethayarajh et al., 2024, https://arxiv.org/abs/2402.01306), with the KL of the pairs."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class KTOPair(PairwiseObjective):
    r"""KTO on comparisons: each prompt has one response of each kind, and no mismatched responses are needed.

    Each side is measured against the mean log-ratio of the other side over the batch, not below 0:

    .. math:: \tfrac12\big(1 - \sigma(r_w - \beta z_l)\big) + \tfrac12\big(1 - \sigma(\beta z_w - r_l)\big),
        \quad z = \max\big(0, \overline{\log\pi_\theta / \pi_\text{ref}}\big)

    Unlike KTO's own estimate these responses answer their prompts, and are trained on: z_w grows as learning succeeds,
    and is no longer a divergence. With few pairs in a batch it is noisy.

    Args:
        beta: pull towards the reference.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        Log-ratios of 10 and -10: the sides' baselines are 10 and 0, so 1/2 (1 - σ(1)) + 1/2 (1 - σ(2)).

        >>> KTOPair(beta=0.1)(Logps.from_lists([-10.0], [-20.0]), Logps.from_lists([-30.0], [-20.0]))
        tensor([0.1941])
    """

    couples_batch: ClassVar[bool] = True
    has_stop_gradient_weight: ClassVar[bool] = True

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.1")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        chosen_reward = self.implicit_reward(chosen)
        rejected_reward = self.implicit_reward(rejected)
        chosen_baseline = chosen_reward.mean().clamp(min=0).detach()
        rejected_baseline = rejected_reward.mean().clamp(min=0).detach()
        chosen_loss = torch.sigmoid(rejected_baseline - chosen_reward)
        rejected_loss = torch.sigmoid(rejected_reward - chosen_baseline)
        return (chosen_loss + rejected_loss) / 2


@hookimpl
def register_objectives(register: Register) -> None:
    register(KTOPair)
