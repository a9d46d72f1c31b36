"""Sequence likelihood calibration (Zhao et al., 2023, https://arxiv.org/abs/2305.10425)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.checks import check_at_least, check_positive
from lit_align.objectives import Logps, PairwiseObjective


@dataclass(frozen=True)
class SLiC(PairwiseObjective):
    r"""Hinge loss on the margin between chosen and rejected response, with cross-entropy as regularisation.

    .. math:: \max\big(0,\ \delta - \beta\log\pi_\theta(y_w) + \beta\log\pi_\theta(y_l)\big)
        - \lambda\log\pi_\theta(y_\text{reg}) \quad \text{(eqs. 1 and 2)}

    Args:
        delta: the margin, in nats times beta.
        beta: scale of the log-probabilities; the paper has none.
        relative: compare log-ratios to the reference instead of log-probabilities, as statistical rejection sampling
            (Liu et al., 2023, https://arxiv.org/abs/2309.06657) and TRL's "hinge" do.
        weight: λ, of the regularisation.
        regularize_on: the response that regularises: "chosen", or the "target" that the data name besides the pair.

    Raises:
        ConfigError: if delta or beta is not positive, or weight is negative.

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
        check_positive("delta", self.delta, "the paper uses 1")
        check_positive("beta", self.beta, "1 is usual")
        check_at_least("weight", self.weight, 0, "0 leaves the regularisation out")

    @property
    def needs_reference(self) -> bool:
        return self.relative

    @property
    def needs_target(self) -> bool:
        return self.regularize_on == "target"

    def implicit_reward(self, logps: Logps) -> Tensor:
        return self.beta * (logps.policy - logps.reference if self.relative else logps.policy)

    def __call__(self, chosen: Logps, rejected: Logps, target: Logps | None = None) -> Tensor:
        hinge = (self.delta - self.implicit_reward(chosen) + self.implicit_reward(rejected)).relu()
        if target is None:
            return hinge + self.supervised_term(chosen)
        return hinge - self.weight * target.policy

    def supervised_term(self, chosen: Logps) -> Tensor | float:
        return 0.0 if self.regularize_on == "target" else -self.weight * chosen.policy


@hookimpl
def register_objectives(register: Register) -> None:
    register(SLiC)
