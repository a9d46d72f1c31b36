"""Ratings by several attributes, for a reward model (Wang et al., 2024, https://arxiv.org/abs/2406.08673)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lit_align import Register, hookimpl
from lit_align.objectives import RatedObjective


@dataclass(frozen=True)
class Regression(RatedObjective):
    r"""Predict what people rate: the squared error of each attribute, where it was rated.

    .. math:: \frac{1}{|A_y|}\sum_{a \in A_y}(r_a - z_a)^2, \qquad r = \sum_a w_a r_a

    Args:
        attributes: attributes of the data, one output of the head for each.
        weights: of each attribute in the one score; 1 for all if empty.

    Raises:
        ValueError: if there is no attribute, or not a weight for each.

    Example:
        Off by 1 and by 3, and where the second was not rated, off by 1 alone.

        >>> rated = torch.tensor([[4.0, 5.0], [4.0, float("nan")]])
        >>> Regression(["helpfulness", "correctness"])(torch.tensor([[5.0, 2.0], [5.0, 2.0]]), rated)
        tensor([5., 1.])
    """

    attributes: list[str] = field(default_factory=lambda: ["rating"])
    weights: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.attributes or len(self.weights) not in (0, len(self.attributes)):
            raise ValueError(
                f"attributes must not be empty, and weights be one for each or none, got {self.attributes} and {self.weights}"
            )

    def __call__(self, scores: Tensor, ratings: Tensor) -> Tensor:
        known = ratings.isfinite()
        errors = (scores - ratings.nan_to_num()).square() * known
        return errors.sum(1) / known.sum(1).clamp(min=1)

    def combined(self, scores: Tensor) -> Tensor:
        return scores @ torch.tensor(self.weights or [1.0] * len(self.attributes)).to(scores)


@hookimpl
def register_objectives(register: Register) -> None:
    register(Regression)
