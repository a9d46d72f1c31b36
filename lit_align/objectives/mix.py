"""A weighted sum of losses; with DPO and cross-entropy it is RPO (Pang et al., 2024, https://arxiv.org/abs/2404.19733)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import Logps, PairwiseObjective, SupervisedObjective


@dataclass(frozen=True)
class Mix(PairwiseObjective):
    r"""Several losses over the same pairs; supervised ones are over the chosen response alone, per token.

    DPO may lower both responses so long as the rejected one falls further; a supervised part holds the chosen one up,
    which keeps answers from collapsing when data are few.

    .. math:: \sum_i w_i\,\ell_i(y_w, y_l) + \sum_j w_j\,\tfrac{1}{|y_w|}\sum_t \ell_j(y_{w,t})

    Args:
        objectives: losses over comparisons and over demonstrations; at least one is over comparisons.
        weights: of each, in that order.

    Raises:
        ValueError: if there are not as many weights as objectives, or none is over comparisons.

    Example:
        DPO at a margin of 1, and two nats a token: 0.3133 + 0.5 * 2.

        >>> from lit_align.objectives import PerTokenLogps
        >>> from lit_align.objectives.cross_entropy import CrossEntropy
        >>> from lit_align.objectives.dpo import DPO
        >>> mix = Mix([DPO(beta=0.1), CrossEntropy()], [1.0, 0.5])
        >>> tokens = PerTokenLogps(torch.full((1, 5), -2.0))
        >>> mix(Logps.from_lists([-10.0], [-10.0], [5])._replace(tokens=tokens), Logps.from_lists([-30.0], [-20.0]))
        tensor([1.3133])
    """

    objectives: list[PairwiseObjective | SupervisedObjective]
    weights: list[float]

    def __post_init__(self) -> None:
        if len(self.objectives) != len(self.weights):
            raise ValueError(
                f"weights must be one for each objective, got {len(self.weights)} for {len(self.objectives)}"
            )
        if not self._pairwise:
            raise ValueError(
                "objectives must hold a loss over comparisons; use the SFT stage to imitate alone"
            )
        if scoring := [type(part).__name__ for part in self.objectives if part.for_reward_model]:
            raise ValueError(
                f"objectives must be over log-probabilities, and {', '.join(scoring)} is over scores"
            )
        parts, pairs = self.objectives, [part for part, _ in self._pairwise]
        of_parts = {
            "needs_reference": any(part.needs_reference for part in parts),
            "couples_batch": any(part.couples_batch for part in parts),
            "weighs": any(part.weighs for part in parts),
            "needs_target": any(part.needs_target for part in pairs),
            "needs_margin": any(part.needs_margin for part in pairs),
            "symmetric": len(pairs) == len(parts) and all(part.symmetric for part in pairs),
            "per_token": frozenset().union(*(part.per_token for part in parts))
            | ({"policy"} if len(pairs) < len(parts) else set()),
        }
        for name, value in of_parts.items():
            object.__setattr__(self, name, value)  # the class is frozen

    @property
    def _pairwise(self) -> list[tuple[PairwiseObjective, float]]:
        both = zip(self.objectives, self.weights, strict=False)
        return [(part, weight) for part, weight in both if isinstance(part, PairwiseObjective)]

    def reward(self, side: Logps) -> Tensor:
        """That of the first loss over comparisons."""
        return self._pairwise[0][0].reward(side)

    def __call__(
        self,
        chosen: Logps,
        rejected: Logps,
        target: Logps | None = None,
        margin: Tensor | float = 0.0,
    ) -> Tensor:
        losses = torch.zeros_like(chosen.policy)
        for part, weight in self._pairwise:
            held: dict[str, Any] = {"target": target} if part.needs_target else {}
            held |= {"margin": margin} if part.needs_margin else {}
            losses = losses + weight * part(chosen, rejected, **held)
        return losses + self._supervised(chosen)

    def imitation(self, chosen: Logps) -> Tensor:
        pulled = [weight * part.imitation(chosen) for part, weight in self._pairwise]
        return torch.zeros_like(chosen.policy) + sum(pulled) + self._supervised(chosen)

    def _supervised(self, chosen: Logps) -> Tensor:
        losses = torch.zeros_like(chosen.policy)
        for part, weight in zip(self.objectives, self.weights, strict=True):
            if isinstance(part, SupervisedObjective):
                assert chosen.tokens is not None  # asked for by ``per_token``
                each = part(chosen.tokens.policy)
                scored = torch.arange(each.shape[1], device=each.device) < chosen.length[:, None]
                losses = losses + weight * (each * scored).sum(1) / chosen.length
        return losses


@hookimpl
def register_objectives(register: Register) -> None:
    register(Mix)
