"""Learn to score each step of a response (Uesato et al., 2022; Lightman et al., 2023, https://arxiv.org/abs/2305.20050)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_align.data.scoring import by_response
from lit_align.data.solution_steps import WRONG
from lit_align.data.transfer import numbers_to_device
from lit_align.errors import ConfigError, DataError
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import require_losses
from lit_align.stages.answering import prediction_record
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.preference_losses import PreferenceLosses
from lit_align.stages.reward_model import RewardModel
from lit_align.types import Batch, LabelKind, Step, Tree


class ProcessRewardModel(RewardModel):
    """Train a process reward model: an adapter with a head that reads the end of each step, all in one pass.

    The head gives log-odds that a step is right. It reads the token that ends the text between two steps, and after the
    last step the token that ends the response. The loss is the mean over labelled steps.

    Args:
        objective: the loss over steps: StepCrossEntropy.
        members: size of an ensemble, as in RewardModel.
        settings: settings that all stages share; init_adapter is usually an SFT adapter.
    """

    reads_steps: ClassVar[bool] = True
    reward_name: ClassVar[str] = "ProcessScore"

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Shares of steps and of responses, and what is said of right and of wrong steps."""
        names = ["steps/accuracy", "steps/right", "steps/wrong", "steps/first_error"]
        if len(self.members) > 1:
            names.append("rewards/std")
        return tuple(names)

    def check_data(self, data: Any) -> None:
        """Refuse data without labels of steps; ``predict``, too, scores the steps that a row is divided into."""
        kind = getattr(data, "label_kind", LabelKind.STEPS)
        if kind != LabelKind.STEPS:
            raise ConfigError(
                f"{type(self).__name__} scores labelled steps, and the data module {type(data).__name__} has {kind}; "
                "set data.class_path to Steps, or use the reward ProcessScore, which divides responses into steps"
            )

    def check_before_data(self, trainer: Trainer, data: Any) -> None:
        """Refuse a data module that does not say what separates steps."""
        super().check_before_data(trainer, data)
        if not hasattr(data, "steps"):
            raise ConfigError(
                f"the data module {type(data).__name__} does not say what separates steps; set data.class_path to Steps"
            )

    def loss_denominator(self, step: Step) -> int:
        """Labelled steps."""
        return step.items

    def member_scores(self, member: str, batch: Batch, training: bool) -> Tensor:
        """Log-odds of one member for each labelled step, ``[steps, 1]``."""
        trees = batch.trees.to(self.device)
        with self.adapters.activate(member, training):
            hidden = self.tree_forward.scored_hidden(trees)
            logits: Tensor = self.adapters.head(member)(hidden)
            return logits

    def label_losses(self, batch: Batch, scores: Tensor) -> PreferenceLosses:
        """Losses and metrics of one member's log-odds, ``[steps, 1]``.

        Raises:
            DataError: if a response has no labels of steps.
        """
        objective, logits = self.objective, scores[:, 0]
        for tree in batch.source:
            if not tree.group.steps:
                raise DataError(
                    f"{tree.group.source} has no labels of steps, from which {objective} learns; use other data"
                )
        values = [label for tree in batch.source for label in tree.group.step_labels]
        labels = numbers_to_device(torch.tensor(values, dtype=logits.dtype), logits.device)
        losses = call_plugin(objective, objective, logits, labels)
        require_losses(objective, losses, logits, len(labels), "steps")
        return PreferenceLosses(
            losses, step_metrics(logits.detach(), labels, batch.trees.owner, batch.trees.responses)
        )

    def provenance(self) -> dict[str, Any]:
        """With the text between two steps, by which responses are divided when they are scored."""
        fields = super().provenance()
        steps = getattr(getattr(self._trainer, "datamodule", None), "steps", None)
        return fields if steps is None else {**fields, "step_separator": steps.separator}

    def normalise(self, trees: Sequence[Tree]) -> None:
        """Nothing: log-odds have a scale of their own."""

    @torch.no_grad()
    def predict_step(
        self, numbered: list[tuple[int, Tree]], batch_idx: int
    ) -> list[dict[str, Any]]:
        """For each row its responses, the chance that each labelled step is right, and the lowest of each response."""
        trees = [tree for _, tree in numbered]
        if not trees:  # an interrupted run has scored them
            return []
        remaining = iter(
            by_response(self._score_trees(trees, self._mean_scores, by_step=True), trees)
        )
        records = []
        for tree in trees:
            scores = [next(remaining) for _ in tree.responses]
            fields = {
                "responses": tree.group.responses,
                "steps": scores,
                "scores": [min(steps) for steps in scores],
            }
            records.append(prediction_record(tree.group, fields))
        return records

    def _mean_scores(self, batch: Batch) -> Tensor:
        """Mean over members of the probability that each labelled step is right, ``[steps]``."""
        members = [self.member_scores(member, batch, training=False) for member in self.members]
        return torch.stack(members)[..., 0].sigmoid().mean(0)


def step_metrics(logits: Tensor, labels: Tensor, owner: Tensor, num_responses: int) -> MetricSums:
    """Sums and counts of the metrics of steps.

    Args:
        logits: log-odds that a step is right, ``[n]``.
        labels: probability that it is, ``[n]``.
        owner: the response that it belongs to, ``[n]``; the steps of a response are in their order.
        num_responses: in the batch.

    Example:
        Of two responses, the second is wrong from its second step on, and the third is held to be its first error.

        >>> logits, labels = torch.tensor([2.0, 3.0, 1.0, 1.0, -1.0]), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0])
        >>> sums = step_metrics(logits, labels, torch.tensor([0, 0, 1, 1, 1]), 2)
        >>> [sums[name][0].item() / sums[name][1].item() for name in ("steps/accuracy", "steps/first_error")]
        [0.8, 0.5]
    """
    is_right, is_held_right = labels >= WRONG, logits > 0
    probability = logits.sigmoid()
    right, wrong = is_right.float(), (~is_right).float()
    first, first_held = (
        _first_wrong(flags, owner, num_responses) for flags in (is_right, is_held_right)
    )
    has_steps = torch.zeros_like(first, dtype=torch.bool).index_fill(0, owner, True)
    is_hit = (first == first_held) & has_steps
    return {
        "steps/accuracy": ((is_right == is_held_right).sum(), torch.ones_like(right).sum()),
        "steps/right": ((probability * right).sum(), right.sum()),
        "steps/wrong": ((probability * wrong).sum(), wrong.sum()),
        "steps/first_error": (is_hit.sum(), has_steps.sum()),
    }


def _first_wrong(is_right: Tensor, owner: Tensor, num_responses: int) -> Tensor:
    """Index of the first step of each response that is not right, ``[responses]``; the number of steps for none."""
    index = torch.arange(len(is_right), device=owner.device)
    index = torch.where(is_right, len(is_right), index)
    return index.new_full((num_responses,), len(is_right)).scatter_reduce(0, owner, index, "amin")
