"""Dynamic Fine-Tuning (Wu et al., 2025, https://arxiv.org/abs/2508.05629)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import SupervisedObjective


@dataclass(frozen=True)
class DFT(SupervisedObjective):
    r"""Cross-entropy that weights tokens by their own probability, so that improbable ones do not dominate.

    .. math:: -\operatorname{sg}\big(\pi_\theta(y_t \mid x, y_{<t})\big)\log\pi_\theta(y_t \mid x, y_{<t})
        \quad \text{(eq. 9)}

    Example:
        >>> import torch
        >>> DFT()(torch.tensor([0.5, 0.25]).log())  # log 2 / 2 and log 4 / 4
        tensor([0.3466, 0.3466])
    """

    has_stop_gradient_weight: ClassVar[bool] = True

    def __call__(self, logps: Tensor) -> Tensor:
        return -logps.detach().exp() * logps


@hookimpl
def register_objectives(register: Register) -> None:
    register(DFT)
