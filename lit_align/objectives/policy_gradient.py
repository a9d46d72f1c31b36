"""The plain policy gradient (Williams, 1992, https://doi.org/10.1007/BF00992696)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import PolicyObjective, PolicyTokens


@dataclass(frozen=True)
class PolicyGradient(PolicyObjective):
    r"""REINFORCE: raise the log-probability of tokens by their advantage; for one update of each batch of samples.

    .. math:: -A \log\pi_\theta(y_t)

    Nothing bounds the distance from the policy that sampled: for several updates of the same samples use PPO.

    Example:
        >>> import torch
        >>> logps = torch.tensor([-2.0])
        >>> PolicyGradient()(PolicyTokens(logps, logps, logps, torch.tensor([0])), torch.tensor([0.5]))
        tensor([1.])
    """

    def __call__(self, tokens: PolicyTokens, advantages: Tensor) -> Tensor:
        return -advantages * tokens.policy


@hookimpl
def register_objectives(register: Register) -> None:
    register(PolicyGradient)
