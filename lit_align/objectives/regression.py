"""Ratings by several attributes, for a reward model (Wang et al., 2024, https://arxiv.org/abs/2406.08673)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.errors import ConfigError
from lit_align.objectives import RatedObjective


@dataclass(frozen=True)
class Regression(RatedObjective):
    r"""Mean squared error of the predicted ratings, over the attributes that were rated.

    .. math:: \frac{1}{|A_y|}\sum_{a \in A_y}(r_a - z_a)^2, \qquad r = \sum_a w_a r_a

    Args:
        attributes: rated attributes of the data, one output of the head for each.
        weights: weight of each attribute in the combined score; 1 for all if empty.

    Raises:
        ConfigError: if there is no attribute, or not a weight for each.

    Example:
        Errors of 1 and 3, and of 1 alone where the second attribute was not rated.

        >>> rated = torch.tensor([[4.0, 5.0], [4.0, float("nan")]])
        >>> Regression(["helpfulness", "correctness"])(torch.tensor([[5.0, 2.0], [5.0, 2.0]]), rated)
        tensor([5., 1.])
    """

    attributes: list[str] = field(default_factory=lambda: ["rating"])
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.attributes:
            raise ConfigError("attributes must name at least one attribute of the data, got none")
        if len(self.weights) not in (0, len(self.attributes)):
            raise ConfigError(
                f"weights must be one for each attribute, or empty, got {self.weights} for {self.attributes}"
            )

    def __call__(self, scores: Tensor, ratings: Tensor) -> Tensor:
        is_rated = ratings.isfinite()
        errors = (scores - ratings.nan_to_num()).square() * is_rated
        return errors.sum(1) / is_rated.sum(1).clamp(min=1)

    def combine(self, scores: Tensor) -> Tensor:
        weights = self.weights or [1.0] * len(self.attributes)
        return scores @ torch.tensor(weights).to(scores)


@hookimpl
def register_objectives(register: Register) -> None:
    register(Regression)
