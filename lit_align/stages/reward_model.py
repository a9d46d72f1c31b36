"""Stage 2: learn to score responses from feedback (Ouyang et al., 2022, https://arxiv.org/abs/2203.02155)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_align.batch_labels import PairLabels, RankLabels
from lit_align.data.label_conversion import ordered_pairs
from lit_align.data.scoring import score_trees
from lit_align.data.trained_prompts import prompt_keys, write_prompt_keys
from lit_align.data.transfer import numbers_to_device
from lit_align.errors import ConfigError, DataError
from lit_align.models.adapter_files import save_adapter
from lit_align.models.heads import ScoreHead
from lit_align.objectives import (
    Objective,
    PairwiseObjective,
    RankedObjective,
    RatedObjective,
    StepwiseObjective,
)
from lit_align.plugin_calls import call_plugin
from lit_align.stages.answering import prediction_record
from lit_align.stages.data_checks import check_label_kind
from lit_align.stages.exact_step import MetricSums
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import (
    MARGIN_METRICS,
    PreferenceLosses,
    pairwise_losses,
    ranked_losses,
    rating_losses,
)
from lit_align.types import Batch, LabelKind, Logps, Step, Tree

NORMALIZATION_GROUPS = 256  # groups over whose responses mean and scale are measured
SMALLEST_SCALE = 1e-4  # a smaller standard deviation of scores is noise


class RewardModel(LanguageModelStage):
    """Train a reward model: an adapter with a head that reads the last token of each response.

    All comparisons of one prompt count as one, so that a prompt with many responses weighs as much as one with two. The
    loss is the mean over prompts, or over responses where they were rated one by one.

    Args:
        objective: the loss: BradleyTerry over pairs, PlackettLuce over rankings or Regression over ratings.
        members: size of an ensemble: adapters with heads of their own on the one base, which differ in their initial
            weights (with init_adapter, in their heads alone); where they disagree, none should be trusted (Coste et
            al., 2024, https://arxiv.org/abs/2310.02743).
        settings: settings that all stages share; init_adapter is usually an SFT adapter.
    """

    reads_steps: ClassVar[bool] = False  # whether steps are scored, rather than responses
    reward_name: ClassVar[str] = "RewardModelScore"

    def __init__(self, objective: Objective, members: int = 1, **settings: Any) -> None:
        check_objective(objective, self.reads_steps)
        if members < 1:
            raise ConfigError(f"members is {members}; an ensemble has at least 1")
        self.members: tuple[str, ...] = ("reward",)
        if members > 1:
            self.members = tuple(f"reward{number}" for number in range(members))
        if isinstance(objective, RatedObjective):
            self.attributes = objective.attributes
        super().__init__(objective, **settings)
        if self.best_of is not None:
            raise ConfigError(
                f"best_of is {self.best_of}, and a reward model answers nothing; leave it out"
            )
        self.normalised_at: int | None = None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names as dashboards of the field use them."""
        names = ["rewards/chosen", "rewards/rejected", *MARGIN_METRICS]
        if self.attributes:
            names = [f"errors/{attribute}" for attribute in self.attributes]
        if len(self.members) > 1:
            names.append("rewards/std")
        return tuple(names)

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """One adapter for each member."""
        return self.members

    @property
    def head_sizes(self) -> dict[str, int]:
        """One output, or one for each rated attribute."""
        return dict.fromkeys(self.members, len(self.attributes) or 1)

    def check_data(self, data: Any) -> None:
        """Refuse labels that the objective cannot learn from; ``predict`` scores responses without any."""
        if self.is_fitting or getattr(data, "label_kind", None) != LabelKind.DEMONSTRATIONS:
            super().check_data(data)

    def check_before_data(self, trainer: Trainer, data: Any) -> None:
        """Refuse what has no label to train on, too."""
        check_label_kind(self.objective, data)
        super().check_before_data(trainer, data)

    def configure_model(self) -> None:
        """Load the base, put the members on it, and set how their heads weigh the outputs."""
        super().configure_model()
        if isinstance(self.objective, RatedObjective):
            weights = self.objective.combine(torch.eye(len(self.attributes)))
            for head in self._heads().values():
                head.combine.copy_(weights)

    def _heads(self) -> dict[str, ScoreHead]:
        return {member: self.adapters.head(member) for member in self.members}

    def loss_denominator(self, step: Step) -> int:
        """Prompts, or rated responses."""
        return step.items if self.attributes else step.groups

    def clipping_groups(self) -> list[list[torch.nn.Parameter]]:
        """One group for each member, so that it learns as it would alone."""
        return self.adapters.trainable_by_role()

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of the labels over all members; metrics are of the members' mean."""
        training = self.adapters.peft.training
        outputs = [self.member_scores(member, batch, training) for member in self.members]
        member_losses = []
        for output in outputs:
            result = self.label_losses(batch, output)
            member_losses.append(result.losses.sum())
        losses = torch.stack(member_losses)
        mean = losses.detach().mean()
        sums: MetricSums = {"loss": (mean, 0.0)}
        if not statistics:
            return losses.sum(), sums
        scores = torch.stack(outputs).detach()
        metrics = self.label_losses(batch, scores.mean(0)).sums
        for name in self.metric_names:
            if name in metrics:
                sums[name] = metrics[name]
        if len(self.members) > 1:
            spread = scores.std(0).flatten()
            sums["rewards/std"] = (spread.sum(), float(len(spread)))
        return losses.sum(), sums

    def member_scores(self, member: str, batch: Batch, training: bool) -> Tensor:
        """Outputs of one member's head for each response, ``[responses, outputs]``, before normalization."""
        trees = batch.trees.to(self.device)
        with self.adapters.activate(member, training):
            return self.head_outputs(member, self.tree_forward.last_hidden(trees), batch)

    def head_outputs(self, member: str, hidden: Tensor, batch: Batch) -> Tensor:
        """Outputs of one member's head, ``[responses, outputs]``, for the hidden states of a batch's responses."""
        scores: Tensor = self.adapters.head(member)(hidden)
        return scores

    def evaluation(self, folder: Path) -> str:
        """The words after ``lit-align evaluate`` that name what a run has trained."""
        return f"reward-bench --reward {self.reward_name} --reward.path {folder}/adapter"

    def label_losses(self, batch: Batch, scores: Tensor) -> PreferenceLosses:
        """Losses and metrics of one member's scores, ``[responses, outputs]``.

        Raises:
            DataError: if the batch has no labels for the objective.
        """
        first = scores[:, 0]
        logps = Logps(first, torch.zeros_like(first), torch.ones_like(first))
        match self.objective, batch:
            case PairwiseObjective() as pairwise, Batch(pairs=PairLabels() as labels):
                result = call_plugin(pairwise, pairwise_losses, pairwise, labels, logps, 0.0)
                weights = torch.tensor(_pair_weights(batch.source), dtype=result.losses.dtype)
                weights = numbers_to_device(weights, result.losses.device)
                return result._replace(losses=result.losses * weights)
            case RankedObjective() as ranked, Batch(rankings=RankLabels() as labels):
                return call_plugin(ranked, ranked_losses, ranked, labels, logps)
            case RatedObjective() as rated, _ if all(tree.group.ratings for tree in batch.source):
                return call_plugin(rated, rating_losses, rated, scores, batch.source)
            case other, _:
                raise DataError(
                    f"{batch.source[0].group.source} has no label that {other} learns from; use other data"
                )

    # ------------------------------------------------------------------ normalized scores

    def on_train_epoch_end(self) -> None:
        """Normalize by the preferred responses of the validation prompts, or of the training prompts."""
        trees = self.datamodule.trees
        groups = trees.get("validation") or trees["train"]
        self.normalise(groups[:NORMALIZATION_GROUPS])

    @torch.no_grad()
    def normalise(self, trees: Sequence[Tree]) -> None:
        """Set each member's mean and scale to those of its scores of the preferred responses in ``trees``."""
        flags: list[bool] = []
        for tree in trees:
            flags += unbeaten_responses(tree)
        is_unbeaten = torch.tensor(flags)
        for member, head in self._heads().items():

            def score_batch(batch: Batch, member: str = member) -> Tensor:
                return self.member_scores(member, batch, training=False).cpu()

            outputs = self._score_trees(trees, score_batch)[is_unbeaten]
            scores = outputs @ head.combine.cpu()
            scale = scores.std(correction=0)
            if not scale > SMALLEST_SCALE:
                rank_zero_warn(
                    f"{member} gives all preferred responses the same score, which is not scaled; use other data"
                )
                scale = torch.ones(())
            head.mean.copy_(scores.mean())
            head.scale.copy_(scale)
        self.normalised_at = self.global_step

    @torch.no_grad()
    def predict_step(
        self, numbered: list[tuple[int, Tree]], batch_idx: int
    ) -> list[dict[str, Any]]:
        """The normalized scores of the responses of each row, and their ratings by attribute if these are learned."""
        trees = [tree for _, tree in numbered]
        if not trees:  # an interrupted run has scored them
            return []
        scored = self._score_trees(trees, self._mean_scores)
        records = []
        by_tree = torch.split(scored, [len(tree.responses) for tree in trees])
        for tree, rows in zip(trees, by_tree, strict=True):
            fields = {"responses": tree.group.responses, "scores": rows[:, 0].tolist()}
            if self.attributes:
                ratings = rows[:, 1:].tolist()
                fields["ratings"] = [
                    dict(zip(self.attributes, row, strict=True)) for row in ratings
                ]
            records.append(prediction_record(tree.group, fields))
        return records

    def _score_trees(
        self, trees: Sequence[Tree], score_batch: Any, by_step: bool = False
    ) -> Tensor:
        longest_tree = max((tree.tokens for tree in trees), default=0)
        budget = max(self.datamodule.token_budget, longest_tree)
        dense = not self.block_sparse
        return score_trees(trees, score_batch, budget, dense, by_step)

    def _mean_scores(self, batch: Batch) -> Tensor:
        """Means over members: each response's normalized score, then its outputs, ``[responses, 1 + outputs]``."""
        rows = []
        for member, head in self._heads().items():
            output = self.member_scores(member, batch, training=False)
            rows.append(torch.cat([head.normalize(output)[:, None], output], 1))
        return torch.stack(rows).mean(0)

    # ------------------------------------------------------------------ checkpoints and adapters

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the normalization too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["normal"] = {
            member: (head.mean.item(), head.scale.item()) for member, head in self._heads().items()
        }
        checkpoint["normalised_at"] = self.normalised_at

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the normalization too."""
        super().on_load_checkpoint(checkpoint)
        self.normalised_at = checkpoint["normalised_at"]
        for member, (mean, scale) in checkpoint["normal"].items():
            head = self.adapters.head(member)
            head.mean.fill_(mean)
            head.scale.fill_(scale)

    def compatibility_settings(self) -> dict[str, Any]:
        """With ratings also the objective: the head has one output for each of its attributes."""
        settings = super().compatibility_settings()
        if isinstance(self.objective, RatedObjective):
            settings["objective"] = repr(self.objective)
        return settings

    def provenance(self) -> dict[str, Any]:
        """With the step at which the scores were normalised."""
        return {
            **super().provenance(),
            "normalised_at": self.normalised_at,
        }

    def save_adapter(self, folder: Path) -> None:
        """Write adapter, head, normalization, provenance and hashes of prompts; one folder for each member."""
        is_ensemble = len(self.members) > 1
        write_keys = partial(write_prompt_keys, keys=self.trained_prompt_keys)
        for member in self.members:
            member_folder = folder / member if is_ensemble else folder
            provenance = self.provenance()
            save_adapter(
                self.adapters, member_folder, member, provenance, self.tokenizer, write_keys
            )

    @cached_property
    def trained_prompt_keys(self) -> list[str]:
        """Hashes of the training prompts, by which RL knows those that were seen here; none without data."""
        data = getattr(self._trainer, "datamodule", None)
        trees = data.trees.get("train") if data is not None else None
        return prompt_keys(tree.group.prompt for tree in trees or ())


def check_objective(objective: Objective, reads_steps: bool) -> None:
    """Refuse an objective that a reward model cannot learn from.

    Args:
        objective: the loss.
        reads_steps: whether the model scores steps, rather than responses.

    Raises:
        ConfigError: naming it, and what to use.
    """
    name = type(objective).__name__
    if reads_steps and not isinstance(objective, StepwiseObjective):
        raise ConfigError(
            f"{name} learns from {objective.label_kind}, and a process reward model from labels of steps; use "
            "StepCrossEntropy, or another stage"
        )
    if isinstance(objective, StepwiseObjective) and not reads_steps:
        raise ConfigError(f"{name} learns from labels of steps; use the stage ProcessRewardModel")
    if not objective.for_reward_model:
        raise ConfigError(
            f"{name} is a loss over log-probabilities, and a reward model gives scores; use BradleyTerry, "
            "PlackettLuce or Regression"
        )


def unbeaten_responses(tree: Tree) -> list[bool]:
    """Which responses nobody found worse than another; all of them if each was found worse than some other.

    Example:
        >>> from lit_align.types import Group, Pair
        >>> unbeaten_responses(Tree([1], [[2], [3]], [[True], [True]], Group("", ["", ""], (Pair(1, 0),))))
        [False, True]
    """
    group = tree.group
    worse = {pair.worse for pair in ordered_pairs(group.pairs)}
    best_place = min(filter(None, group.ranking), default=0)
    flags = []
    for index in range(len(tree.responses)):
        is_first = not group.ranking or group.ranking[index] == best_place
        flags.append(is_first and index not in worse)
    return flags if any(flags) else [True] * len(flags)


def _pair_weights(trees: Sequence[Tree]) -> list[float]:
    """For each pair one over the number of its prompt's pairs."""
    weights = []
    for tree in trees:
        count = len(tree.group.pairs)
        weights += [1 / count] * count
    return weights
