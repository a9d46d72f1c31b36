"""Stage 1: imitate demonstrations (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lit_align.objectives import SupervisedObjective
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import require_losses
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import TOKEN_METRICS
from lit_align.types import Batch, Step


class SFT(LanguageModelStage):
    """Fine-tune on demonstrations; only assistant turns are learned.

    The loss is the mean over the scored tokens of a whole step, however they are cut into micro-batches.

    Args:
        objective: the loss of a token, such as CrossEntropy.
        settings: settings that all stages share.
    """

    can_shard_base = True

    def __init__(self, objective: SupervisedObjective, **settings: Any) -> None:
        super().__init__(objective, **settings)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names as dashboards of the field use them."""
        return TOKEN_METRICS

    def loss_denominator(self, step: Step) -> int:
        """Scored tokens."""
        return step.tokens

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of the scored tokens."""
        tokens = self.tree_forward(batch.trees, statistics=statistics)
        losses = call_plugin(self.objective, self.objective, tokens.logps)
        require_losses(self.objective, losses, tokens.logps, len(tokens.logps), "tokens")
        loss = losses.sum()
        if tokens.top1 is None or tokens.entropy is None:
            return loss, {}
        count = float(len(tokens.logps))
        return loss, {
            "mean_token_accuracy": (tokens.top1.float().sum(), count),
            "entropy": (tokens.entropy.sum(), count),
        }
