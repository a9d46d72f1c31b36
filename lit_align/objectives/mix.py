"""A weighted sum of losses; with DPO and cross-entropy it is RPO (Pang et al., 2024, https://arxiv.org/abs/2404.19733)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.objectives import Logps, PairwiseObjective, SupervisedObjective


@dataclass(frozen=True)
class Mix(PairwiseObjective):
    r"""Weighted sum of losses over the same pairs; supervised ones read the chosen response alone, per token.

    DPO may lower both responses so long as the rejected one falls further; a supervised part keeps the chosen one up,
    which prevents collapse on little data.

    .. math:: \sum_i w_i\,\ell_i(y_w, y_l) + \sum_j w_j\,\tfrac{1}{|y_w|}\sum_t \ell_j(y_{w,t})

    Args:
        objectives: losses over comparisons and over demonstrations; at least one is over comparisons.
        weights: weight of each, in that order.

    Raises:
        ConfigError: if there are not as many weights as objectives, none is over comparisons, or one is for a reward
            model or reads more than log-probabilities.

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
            raise ConfigError(
                f"weights must be one for each objective, got {len(self.weights)} for {len(self.objectives)}"
            )
        if not self._pairwise:
            raise ConfigError(
                "objectives must hold a loss over comparisons; for cross-entropy alone use the SFT stage"
            )
        reward_losses = [type(part).__name__ for part in self.objectives if part.for_reward_model]
        unread = [
            type(part).__name__
            for part, _ in self._supervised
            if part.needs_entropy or part.needs_divergence
        ]
        if unread:
            raise ConfigError(
                f"objectives must be over log-probabilities, and {', '.join(unread)} reads entropy or a divergence, "
                "which comparisons have not; use it in the SFT stage"
            )
        if reward_losses:
            raise ConfigError(
                f"objectives must be over log-probabilities, and {', '.join(reward_losses)} is over scores"
            )

    @property
    def needs_reference(self) -> bool:
        return any(part.needs_reference for part in self.objectives)

    @property
    def couples_batch(self) -> bool:
        return any(part.couples_batch for part in self.objectives)

    @property
    def has_stop_gradient_weight(self) -> bool:
        return any(part.has_stop_gradient_weight for part in self.objectives)

    @property
    def needs_target(self) -> bool:
        return any(part.needs_target for part, _ in self._pairwise)

    @property
    def needs_margin(self) -> bool:
        return any(part.needs_margin for part, _ in self._pairwise)

    @property
    def margin_only(self) -> bool:
        return not self._supervised and all(part.margin_only for part, _ in self._pairwise)

    @property
    def token_fields(self) -> frozenset[str]:
        fields = frozenset({"policy"} if self._supervised else ())
        return fields.union(*(part.token_fields for part in self.objectives))

    @property
    def _pairwise(self) -> list[tuple[PairwiseObjective, float]]:
        weighted = zip(self.objectives, self.weights, strict=True)
        return [(part, weight) for part, weight in weighted if isinstance(part, PairwiseObjective)]

    @property
    def _supervised(self) -> list[tuple[SupervisedObjective, float]]:
        weighted = zip(self.objectives, self.weights, strict=True)
        return [
            (part, weight) for part, weight in weighted if isinstance(part, SupervisedObjective)
        ]

    def implicit_reward(self, logps: Logps) -> Tensor:
        """That of the first loss over comparisons."""
        return self._pairwise[0][0].implicit_reward(logps)

    def __call__(
        self,
        chosen: Logps,
        rejected: Logps,
        target: Logps | None = None,
        margin: Tensor | float = 0.0,
    ) -> Tensor:
        losses = torch.zeros_like(chosen.policy)
        for part, weight in self._pairwise:
            options: dict[str, Any] = {}
            if part.needs_target:
                options["target"] = target
            if part.needs_margin:
                options["margin"] = margin
            losses = losses + weight * part(chosen, rejected, **options)
        return losses + self._supervised_loss(chosen)

    def supervised_term(self, chosen: Logps) -> Tensor:
        terms = sum(weight * part.supervised_term(chosen) for part, weight in self._pairwise)
        return torch.zeros_like(chosen.policy) + terms + self._supervised_loss(chosen)

    def _supervised_loss(self, chosen: Logps) -> Tensor:
        losses = torch.zeros_like(chosen.policy)
        for part, weight in self._supervised:
            assert chosen.tokens is not None  # requested by ``token_fields``
            token_losses = part(chosen.tokens.policy)
            places = torch.arange(token_losses.shape[1], device=token_losses.device)
            is_scored = places < chosen.length[:, None]
            losses = losses + weight * (token_losses * is_scored).sum(1) / chosen.length
        return losses


@hookimpl
def register_objectives(register: Register) -> None:
    register(Mix)
