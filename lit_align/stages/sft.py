"""Stage 1: imitate demonstrations (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_align.objectives import SupervisedObjective
from lit_align.stages import preference_losses
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import Sums
from lit_align.types import Batch, Step


class SFT(LanguageModelStage):
    """Fine-tune on demonstrations: every assistant turn is learned, nothing else is.

    The loss is the mean over the scored tokens of a whole step, however they fall into micro-batches.

    Args:
        objective: the loss of a token, CrossEntropy.
        settings: everything that all stages share.
    """

    def __init__(self, objective: SupervisedObjective, **settings: Any) -> None:
        super().__init__(objective, **settings)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names, as dashboards know them."""
        return preference_losses.TOKENS

    def loss_denominator(self, step: Step) -> int:
        """Scored tokens."""
        return step.tokens

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, Sums]:
        """Summed loss of the scored tokens."""
        tokens = self.tree_forward(batch.trees, statistics=statistics)
        loss = self.objective(tokens.logps).sum()
        if tokens.top1 is None or tokens.entropy is None:
            return loss, {}
        n = tokens.logps.new_tensor(float(len(tokens.logps)))
        return loss, {
            "mean_token_accuracy": (tokens.top1.float().sum(), n),
            "entropy": (tokens.entropy.sum(), n),
        }
