"""Sequence likelihood calibration (Zhao et al., 2023, https://arxiv.org/abs/2305.10425)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class SLiC(PairwiseObjective):
    r"""Keep the chosen response ahead by a margin, and hold the policy to a response it should keep giving.

    .. math:: \max\big(0,\ \delta - \beta\log\pi_w + \beta\log\pi_l\big) - \lambda\log\pi_\text{held}
        \quad \text{(eqs. 1 and 2)}

    Args:
        delta: the margin, in nats times beta.
        beta: scale of the log-probabilities; the paper has none.
        relative: compare log-ratios to the reference instead of log-probabilities, as statistical rejection sampling
            (Liu et al., 2023, https://arxiv.org/abs/2309.06657) and TRL's "hinge" do.
        weight: λ, of the regularisation.
        regularize_on: the response that regularises: "chosen", or the "target" that the data name besides the pair.

    Raises:
        ValueError: if delta or beta is not positive, or weight is negative.

    Example:
        A margin of 1 - (-10 + 10.4) = 0.6 and a regularisation of 0.1 * 10.

        >>> SLiC(delta=1.0, weight=0.1)(Logps.from_lists([-10.0]), Logps.from_lists([-10.4]))
        tensor([1.6000])
    """

    delta: float = 1.0
    beta: float = 1.0
    relative: bool = False
    weight: float = 0.1
    regularize_on: Literal["chosen", "target"] = "chosen"

    def __post_init__(self) -> None:
        if not (self.delta > 0 and self.beta > 0):
            raise ValueError(
                f"delta and beta must be positive, got {self.delta} and {self.beta}; the paper uses 1"
            )
        if self.weight < 0:
            raise ValueError(
                f"weight must not be negative, got {self.weight}; 0 leaves the regularisation out"
            )
        object.__setattr__(self, "needs_reference", self.relative)  # the class is frozen
        object.__setattr__(self, "needs_target", self.regularize_on == "target")

    def reward(self, side: Logps) -> Tensor:
        return self.beta * (side.policy - side.reference if self.relative else side.policy)

    def __call__(self, chosen: Logps, rejected: Logps, target: Logps | None = None) -> Tensor:
        behind = (self.delta - self.reward(chosen) + self.reward(rejected)).relu()
        return behind + (self.imitation(chosen) if target is None else -self.weight * target.policy)

    def imitation(self, chosen: Logps) -> Tensor | float:
        return 0.0 if self.regularize_on == "target" else -self.weight * chosen.policy


@hookimpl
def register_objectives(register: Register) -> None:
    register(SLiC)
