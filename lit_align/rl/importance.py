"""Importance weights in the loss, for responses that another distribution than the policy's has sampled."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_align.functional.importance import truncated_importance_weights
from lit_align.stages.exact_step import MetricSums

IMPORTANCE_METRICS = ("policy/importance_weight", "policy/importance_capped")
"""Mean weight of a token, and share of the tokens whose weight the cap cuts."""


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights of the tokens of an update.

    They weigh the policy's loss and a KL penalty in the loss, which are both means over sampled tokens; the critic's
    loss is left as it is.

    Args:
        cap: the largest weight.
    """

    cap: float

    def of_tokens(self, old_logps: Tensor, sampler_logps: Tensor) -> Tensor:
        """Weight of each token, ``[n]``, from its probability before the update and under what sampled it."""
        return truncated_importance_weights(old_logps, sampler_logps, self.cap)

    def metrics(self, weights: Tensor) -> MetricSums:
        """Sums of `IMPORTANCE_METRICS`."""
        capped = (weights >= self.cap).float()
        return dict(
            zip(IMPORTANCE_METRICS, (sum_and_count(weights), sum_and_count(capped)), strict=True)
        )


def sum_and_count(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and number of values; the number is not copied from the host, for which a GPU would wait."""
    return values.sum(), values.new_full((), len(values))
