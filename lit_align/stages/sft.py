"""Stage 1: imitate demonstrations (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lit_align.errors import ConfigError
from lit_align.functional.divergence import Predictions, token_divergence
from lit_align.objectives import SupervisedObjective
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import require_losses
from lit_align.rewards.teacher_model import LoadedTeacher, TeacherModel, check_positions
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import TOKEN_METRICS
from lit_align.types import Batch, PackedTrees, Step, TokenLogps


class SFT(LanguageModelStage):
    """Fine-tune on demonstrations; only assistant turns are learned.

    The loss is the mean over the scored tokens of a whole step, however they are cut into micro-batches.

    Args:
        objective: the loss of a token, such as CrossEntropy.
        teacher: a model whose whole distribution Distillation learns from; null for none.
        settings: settings that all stages share.

    Raises:
        ConfigError: if the objective and the teacher do not need each other.
    """

    can_shard_base = True

    def __init__(
        self,
        objective: SupervisedObjective,
        teacher: TeacherModel | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(objective, **settings)
        self.teacher = teacher
        source = objective.divergence_from
        if (teacher is not None) != (source is not None and source.role == "teacher"):
            name = type(objective).__name__
            raise ConfigError(
                f"{name} learns from a teacher, and there is none; set model.teacher"
                if teacher is None
                else f"there is a teacher, and {name} does not learn from it; set objective to Distillation"
            )
        self._teacher: LoadedTeacher | None = None

    def configure_model(self) -> None:
        """Load the base with its adapter, and the teacher where a loss is computed; ``predict`` needs none."""
        super().configure_model()
        if self._trainer is None or self.trainer.state.fn == TrainerFn.PREDICTING:
            return
        teacher = self.load_teacher()
        if teacher is not None:
            for trees in self.datamodule.trees.values():
                check_positions(teacher.adapters, trees)

    def load_teacher(self) -> LoadedTeacher | None:
        """The teacher, which is loaded when it is first needed; None if there is none."""
        if self.teacher is not None and self._teacher is None:
            self._teacher = self.teacher.load(self.adapters, self.tokenizer)
        return self._teacher

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names as dashboards of the field use them."""
        divergence = ("divergence",) if self._objective.needs_divergence else ()
        return (*TOKEN_METRICS, *divergence)

    @property
    def _objective(self) -> SupervisedObjective:
        return cast(SupervisedObjective, self.objective)

    def loss_denominator(self, step: Step) -> int:
        """Scored tokens."""
        return step.tokens

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of the scored tokens."""
        tokens, options = self._read(batch, statistics)
        losses = call_plugin(self.objective, partial(self.objective, tokens.logps, **options))
        require_losses(self.objective, losses, tokens.logps, len(tokens.logps), "tokens")
        loss = losses.sum()
        if tokens.top1 is None or tokens.entropy is None:
            return loss, {}
        count = float(len(tokens.logps))
        sums: MetricSums = {
            "mean_token_accuracy": (tokens.top1.float().sum(), count),
            "entropy": (tokens.entropy.sum(), count),
        }
        if tokens.divergence is not None:
            sums["divergence"] = (tokens.divergence.detach().sum(), count)
        return loss, sums

    def _read(self, batch: Batch, statistics: bool) -> tuple[TokenLogps, dict[str, Tensor]]:
        """The policy's numbers for the scored tokens, and what the objective is given by name."""
        objective, trees = self._objective, batch.trees
        source = objective.divergence_from
        other = None if source is None else self._other_predictions(trees)
        predictions = self.tree_forward.predictions(trees)
        needs_statistics = statistics or objective.needs_entropy
        tokens = self.tree_forward.score(predictions, trees.target, needs_statistics)
        options: dict[str, Tensor] = {}
        if source is not None and other is not None:
            options["divergence"] = token_divergence(predictions, other, source.beta)
            tokens = tokens._replace(divergence=options["divergence"])
        if objective.needs_entropy and tokens.entropy is not None:
            options["entropy"] = tokens.entropy
        return tokens, options

    @torch.no_grad()
    def _other_predictions(self, trees: PackedTrees) -> Predictions:
        """What the teacher, or else the reference, predicts; read first, while no graph is in memory."""
        teacher = self.load_teacher()
        if teacher is not None:
            return teacher.predictions(trees)
        with self.adapters.activate("reference", training=False):
            return self.tree_forward.predictions(trees)
