"""Cross-entropy on demonstrations, the loss of supervised fine-tuning (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import SupervisedObjective


@dataclass(frozen=True)
class CrossEntropy(SupervisedObjective):
    r"""Raise the log-probability of every token of the demonstrations.

    .. math:: -\log\pi_\theta(y_t \mid x, y_{<t})

    Example:
        >>> import torch
        >>> CrossEntropy()(torch.tensor([-0.5, -2.0]))
        tensor([0.5000, 2.0000])
    """

    def __call__(self, logps: Tensor) -> Tensor:
        return -logps


@hookimpl
def register_objectives(register: Register) -> None:
    register(CrossEntropy)
