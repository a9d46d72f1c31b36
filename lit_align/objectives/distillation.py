"""Distillation of a teacher on demonstrations (Hinton et al., 2015, https://arxiv.org/abs/1503.02531)."""

from dataclasses import dataclass

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_fraction
from lit_align.objectives import DivergenceFrom, SupervisedObjective


@dataclass(frozen=True)
class Distillation(SupervisedObjective):
    r"""Pull the whole distribution at each token of a demonstration to that of the stage's teacher.

    .. math:: w\,D_\beta\big(T(\cdot \mid x, y_{<t}) \,\|\, \pi_\theta(\cdot \mid x, y_{<t})\big)
        - (1 - w) \log\pi_\theta(y_t \mid x, y_{<t})

    with the generalised Jensen-Shannon divergence of `lit_align.functional.divergence`.

    Args:
        beta: β: 0, the forward KL divergence of Hinton et al., to 1, the reverse one.
        weight: w: of the teacher; the rest is the cross-entropy of the demonstration.

    Raises:
        ConfigError: if beta or weight is not between 0 and 1.

    Example:
        Half of 0.2 nats and half of 1 nat.

        >>> import torch
        >>> Distillation(weight=0.5)(torch.tensor([-1.0]), divergence=torch.tensor([0.2]))
        tensor([0.6000])
    """

    beta: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_fraction("beta", self.beta)
        check_fraction("weight", self.weight)

    @property
    def divergence_from(self) -> DivergenceFrom:
        return DivergenceFrom("teacher", self.beta)

    def __call__(self, logps: Tensor, divergence: Tensor) -> Tensor:  # type: ignore[override]
        return self.weight * divergence - (1 - self.weight) * logps


@hookimpl
def register_objectives(register: Register) -> None:
    register(Distillation)
