"""Direct Preference Optimization (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_align import Register, hookimpl
from lit_align.checks import check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class DPO(PairwiseObjective):
    r"""Raise the chosen response over the rejected one, relative to the reference.

    .. math:: -\log\sigma\Big(\beta\log\tfrac{\pi_\theta(y_w)}{\pi_\text{ref}(y_w)}
        - \beta\log\tfrac{\pi_\theta(y_l)}{\pi_\text{ref}(y_l)}\Big) \quad \text{(eq. 7)}

    Args:
        beta: pull towards the reference; the paper uses 0.1 to 0.5.

    Raises:
        ConfigError: if beta is not positive.

    Example:
        >>> DPO(beta=0.1)(Logps.from_lists([-10.0], [-10.0]), Logps.from_lists([-30.0], [-20.0]))  # log(1 + 1/e)
        tensor([0.3133])
    """

    margin_only: ClassVar[bool] = True

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive("beta", self.beta, "the paper uses 0.1 to 0.5")

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference)  # eq. 5, without the term that cancels

    def __call__(self, chosen: Logps, rejected: Logps) -> Tensor:
        return -logsigmoid(self.implicit_reward(chosen) - self.implicit_reward(rejected))


@hookimpl
def register_objectives(register: Register) -> None:
    register(DPO)
