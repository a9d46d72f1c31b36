"""Entropy bonus, fixed (Schulman et al., 2017, https://arxiv.org/abs/1707.06347) or adaptive (He et al., 2025, https://arxiv.org/abs/2505.22312)."""

from __future__ import annotations

from dataclasses import dataclass

from lit_align.checks import check_at_least, check_positive
from lit_align.errors import ConfigError

POLICY_ENTROPY = "policy/entropy"
APPLIED = "objective/entropy_coefficient"


@dataclass(frozen=True)
class EntropyBonus:
    r"""Reward for uncertainty, with the gradient of the entropy, so that the policy goes on trying other tokens.

    .. math:: \ell_t - \alpha_k H_t, \quad H_t = -\sum_v \pi_\theta(v \mid y_{<t}) \log\pi_\theta(v \mid y_{<t})
        \quad \text{(eq. 9)}

    without a target at the same α. With one, α is what the adaptive entropy control of Skywork-OR1 has:

    .. math:: \alpha_k = c_k\,[e_{k-1} \le e^*], \quad c_{k+1} = c_k + \begin{cases} \Delta & e_k \le e^* \\ -\Delta &
        e_k > e^* \end{cases}

    where e is the mean entropy of what an iteration sampled. A token's bonus has the weight of its loss; in TRL the
    bonus is a mean over tokens whatever the loss is, and where the most uncertain tokens alone are learned from, over
    these. As in TRL the entropy of the iteration before decides whether a bonus is given, so that there is none in the
    first, and c stays between 0 and a limit; in the paper it is that of the same iteration, which may not be measured
    before its updates.

    Args:
        coefficient: loss that one nat of entropy takes off: α, or the first c where there is a target.
        target: e*: nats a token below which the coefficient grows and above which it falls; null keeps it fixed.
        step: Δ: by how much it does in an iteration.
        limit: largest coefficient that it grows to.

    Raises:
        ConfigError: if coefficient is negative or over the limit, a target or its step is not positive, or there is
            neither a coefficient nor a target.
    """

    coefficient: float = 0.0
    target: float | None = None
    step: float = 0.005
    limit: float = 1.0

    def __post_init__(self) -> None:
        check_at_least("entropy_bonus.coefficient", self.coefficient, 0.0)
        if self.target is None:
            if not self.coefficient:
                raise ConfigError(
                    "entropy_bonus has a coefficient of 0 and no target, so that it changes nothing; set coefficient, "
                    "such as 0.001, or target, such as 0.2"
                )
            return
        check_positive("entropy_bonus.target", self.target, "the paper uses 0.2")
        check_positive("entropy_bonus.step", self.step, "the paper uses 0.005")
        if self.coefficient > self.limit:
            raise ConfigError(
                f"entropy_bonus.coefficient is {self.coefficient:g} and entropy_bonus.limit {self.limit:g}; raise the "
                "limit"
            )

    def adapt(self, coefficient: float, measured: float) -> float:
        """Coefficient of the next iteration: raised at or below the target, lowered above it.

        Args:
            coefficient: c of this iteration.
            measured: entropy of this iteration, in nats a token.

        Example:
            >>> bonus = EntropyBonus(target=0.2)
            >>> round(bonus.adapt(0.01, 0.1), 3), round(bonus.adapt(0.01, 0.3), 3)
            (0.015, 0.005)
        """
        if self.target is None:
            return coefficient
        step = self.step if measured <= self.target else -self.step
        return min(max(coefficient + step, 0.0), self.limit)


class EntropyControl:
    """The coefficient of a run, from iteration to iteration; without a bonus it does nothing.

    Args:
        bonus: settings.

    Attributes:
        coefficient: c of the iteration.
        applied: α of the iteration; 0 where its entropy is enough.
    """

    def __init__(self, bonus: EntropyBonus | None) -> None:
        self.bonus = bonus
        self.coefficient = bonus.coefficient if bonus is not None else 0.0
        is_fixed = bonus is not None and bonus.target is None
        self.applied = self.coefficient if is_fixed else 0.0

    @property
    def update_metrics(self) -> tuple[str, ...]:
        """Names of what an update logs of it."""
        return () if self.bonus is None else (POLICY_ENTROPY,)

    @property
    def sample_metrics(self) -> tuple[str, ...]:
        """Names of `end_iteration`'s metrics."""
        return () if self.bonus is None else (APPLIED,)

    def end_iteration(self, measured: float) -> dict[str, float]:
        """Move on to the next iteration; returns the metrics of this one.

        Args:
            measured: its entropy, in nats a token.
        """
        if self.bonus is None:
            return {}
        metrics = {APPLIED: self.applied}
        self.coefficient = self.bonus.adapt(self.coefficient, measured)
        target = self.bonus.target
        self.applied = self.coefficient if target is None or measured <= target else 0.0
        return metrics

    def state(self) -> dict[str, float]:
        """What a checkpoint needs of it."""
        return {"coefficient": self.coefficient, "applied": self.applied}

    def restore(self, state: dict[str, float]) -> None:
        """Restore what `state` has returned; the settings are those of this run."""
        if self.bonus is not None and state:
            self.coefficient, self.applied = state["coefficient"], state["applied"]
