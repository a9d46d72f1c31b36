"""Stage 3b: learn from feedback directly (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_align.batch_labels import PairLabels, RankLabels, UnpairedLabels
from lit_align.data.transfer import numbers_to_device
from lit_align.errors import ConfigError, DataError, TrainingError
from lit_align.functional.logps import response_logps, sum_by_response
from lit_align.models.load import tokenizer_fingerprint
from lit_align.models.reference_cache import ReferenceCache
from lit_align.objectives import Objective, PairwiseObjective, RankedObjective, UnpairedObjective
from lit_align.objectives.base import family_name
from lit_align.plugin_calls import call_plugin
from lit_align.plugin_contracts import reference_fault, require_contract
from lit_align.stages.exact_step import MetricSums, StepSums
from lit_align.stages.kto_baseline import RunningBaseline
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import (
    MARGIN_METRICS,
    SHIFT_METRICS,
    SIDE_METRICS,
    TOKEN_METRICS,
    PreferenceLosses,
    pairwise_losses,
    ranked_losses,
    token_metrics,
    unpaired_losses,
)
from lit_align.stages.remembered_reference import RememberedReference
from lit_align.types import Batch, LabelKind, Logps, PackedTrees, Step, TokenLogps

OF_REFERENCE = ("model.base", "model.init_adapter", "model.objective")
"""Settings that what is remembered of the reference depends on."""
SHIFT_WARNING = -1.0  # nats that chosen responses may lose before a line is logged


class Preference(LanguageModelStage):
    """Fine-tune on feedback without a reward model: DPO and its family, KTO, rankings.

    The loss is the mean over the pairs, binary labels or rankings of a whole step. A label that is right with
    probability p counts as p L(a, b) + (1 - p) L(b, a), with any objective over pairs or binary labels; the part that
    only imitates the chosen response counts with p.

    Args:
        objective: the loss, such as DPO over pairs, KTO over binary labels or PlackettLuceDPO over rankings.
        label_noise: chance that any label is flipped; folded into every label's probability.
        cache_reference: folder for the reference's log-probabilities, which the next run then reads instead of
            computing them. Without it, epochs after the first read them from memory and checkpoints, in a run of one
            process whose rows stay the same, for as many rows as 64 MiB hold.
        baseline_size: newest responses that the baseline of KTO or BCO is the mean of, by whole steps. Those of earlier
            steps come from earlier policies, so it lags behind; a single step's is noisy.
        settings: settings that all stages share.
    """

    can_shard_base = True

    def __init__(
        self,
        objective: Objective,
        label_noise: float = 0.0,
        cache_reference: str | None = None,
        baseline_size: int = 64,
        **settings: Any,
    ) -> None:
        super().__init__(objective, **settings)
        _check_objective(objective)
        if not 0 <= label_noise < 0.5:
            raise ConfigError(
                f"label_noise is the chance of a flipped label, at least 0 and under 0.5, got {label_noise}"
            )
        if label_noise and (objective.couples_batch or isinstance(objective, RankedObjective)):
            raise ConfigError(
                f"label_noise is {label_noise}, and {type(objective).__name__} has no loss for a flipped label; "
                "leave label_noise out"
            )
        if cache_reference is not None and "reference" in objective.token_fields:
            raise ConfigError(
                f"cache_reference saves one number for each response, but {type(objective).__name__} reads tokens; "
                "leave it out"
            )
        self.label_noise, self.cache_reference = label_noise, cache_reference
        self.baseline = RunningBaseline(baseline_size)
        self._cache: ReferenceCache | None = None
        self._reference = RememberedReference(self)
        self._warned_of_shift = False
        self._is_reference_checked = False

    def check_before_data(self, trainer: Trainer, data: Any) -> None:
        """Refuse several processes for an objective that needs a whole step at once, too."""
        if self.objective.couples_batch and trainer.world_size > 1:
            raise ConfigError(
                f"{type(self.objective).__name__} looks at all items of a step together, and {trainer.world_size} "
                "processes would share them; set trainer.devices and trainer.num_nodes to 1"
            )
        super().check_before_data(trainer, data)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names as dashboards of the field use them."""
        if isinstance(self.objective, UnpairedObjective):
            return (*SIDE_METRICS, "kl", *TOKEN_METRICS)
        names: tuple[str, ...] = (*SIDE_METRICS, *MARGIN_METRICS)
        if isinstance(self.objective, PairwiseObjective) and self.objective.needs_reference:
            names += SHIFT_METRICS
        return (*names, *TOKEN_METRICS)

    @property
    def mismatched(self) -> bool:
        """Whether trees need a response to another prompt: KTO's baseline is measured on it."""
        return isinstance(self.objective, UnpairedObjective) and self.objective.baseline == "kl"

    @property
    def needs_whole_steps(self) -> bool:
        """Whether the objective looks at all items of a step together."""
        return self.objective.couples_batch

    def loss_denominator(self, step: Step) -> int:
        """Pairs, binary labels or rankings."""
        return step.items

    def training_step(self, step: Step, batch_idx: int) -> None:
        """Learn from one step.

        Raises:
            TrainingError: if the objective couples the items of a step and the step was cut up.
        """
        if self.objective.couples_batch and (len(step.batches) > 1 or self.trainer.world_size > 1):
            raise TrainingError(
                f"{type(self.objective).__name__} looks at all items of a step together, and this step was cut into "
                f"{len(step.batches)} micro-batches on {self.trainer.world_size} processes; raise data.token_budget or "
                "lower data.batch_size until one holds it, on one process"
            )
        with self._reference.during("training"):
            super().training_step(step, batch_idx)

    def validation_step(self, step: Step, batch_idx: int) -> None:
        """Add one step to the validation metrics."""
        with self._reference.during("validation"):
            super().validation_step(step, batch_idx)

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, MetricSums]:
        """Summed loss of the labels."""
        needs_statistics = statistics or "collision" in self.objective.token_fields
        tokens = self.tree_forward(batch.trees, statistics=needs_statistics)
        result = self.label_losses(batch, tokens)
        sums = result.sums
        if statistics:
            sums = {**sums, **token_metrics(tokens, result)}
        return result.losses.sum(), sums

    def label_losses(self, batch: Batch, tokens: TokenLogps) -> PreferenceLosses:
        """Loss of each label, and metrics, from the log-probabilities of the batch's tokens.

        Raises:
            DataError: if the batch has no labels for the objective.
        """
        logps = self.logps(batch, tokens)
        result = self._losses_of(batch, logps)
        if not self._is_reference_checked and not self.objective.needs_reference:
            self._check_reference_unused(batch, logps, result)
        return result

    def _losses_of(self, batch: Batch, logps: Logps) -> PreferenceLosses:
        match self.objective, batch:
            case PairwiseObjective() as pairwise, Batch(pairs=PairLabels() as labels):
                _check_targets(pairwise, batch)
                return call_plugin(
                    pairwise, pairwise_losses, pairwise, labels, logps, self.label_noise
                )
            case UnpairedObjective() as unpaired, Batch(unpaired=UnpairedLabels() as labels):
                baseline = numbers_to_device(self.baseline(), logps.policy.device)
                baseline = baseline.to(logps.policy.dtype)
                noise = self.label_noise
                return call_plugin(
                    unpaired, unpaired_losses, unpaired, labels, logps, noise, baseline
                )
            case RankedObjective() as ranked, Batch(rankings=RankLabels() as labels):
                return call_plugin(ranked, ranked_losses, ranked, labels, logps)
            case other, _:
                raise DataError(
                    f"{batch.source[0].group.source} has no label that {other} learns from; use other data"
                )

    def _check_reference_unused(self, batch: Batch, logps: Logps, result: PreferenceLosses) -> None:
        """Refuse an objective that reads the reference and says that it does not: it would be 0 all along.

        Raises:
            PluginError: naming the objective.
        """
        self._is_reference_checked = True
        missing = logps._replace(reference=torch.full_like(logps.reference, torch.nan))
        # an objective that draws random numbers draws the same ones in the steps as without this call
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            without_reference = self._losses_of(batch, missing)
        sides = ("rewards/chosen", "rewards/rejected")
        rewards = [without_reference.sums[side][0] for side in sides]
        require_contract(
            reference_fault(self.objective, result.losses, without_reference.losses, rewards)
        )

    def after_step(self, metrics: dict[str, float], sums: StepSums) -> None:
        """Update the running baseline, and log a line when chosen responses become less probable."""
        if not self._warned_of_shift and metrics.get("shift/chosen", 0.0) < SHIFT_WARNING:
            self._warned_of_shift = True
            rank_zero_info(
                f"step {self.global_step}: the log-probability of chosen responses has fallen by "
                f"{-metrics['shift/chosen']:.1f} nats since training began (rejected: "
                f"{metrics['shift/rejected']:+.1f}); the report at the end shows where the probability went"
            )
        if isinstance(self.objective, UnpairedObjective):
            sides = ("rewards/chosen", "rewards/rejected")
            if all(side in metrics for side in sides):
                metrics["rewards/margins"] = metrics[sides[0]] - metrics[sides[1]]
            if self.objective.baseline != "none":
                kinds = ("kl",) if self.mismatched else sides
                self.baseline.add({kind: sums[kind] for kind in kinds})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the running baseline and what is remembered of the reference, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference"] = self._reference.state()
        checkpoint["baseline"] = self.baseline.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        super().on_load_checkpoint(checkpoint)
        if not self.resumption.has_changed(*OF_REFERENCE):
            self._reference.restore(checkpoint.get("reference", {}))
        self.baseline.steps = list(checkpoint["baseline"])

    # ------------------------------------------------------------------ log-probabilities

    def logps(self, batch: Batch, tokens: TokenLogps) -> Logps:
        """Log-probabilities of the batch's responses, ``[responses]``, from those of its tokens."""
        trees, objective = batch.trees, self.objective
        reference_tokens = None
        if "reference" in objective.token_fields:
            reference_tokens = self.reference_tokens(batch)
            reference = sum_by_response(reference_tokens, trees.owner, trees.responses)
        elif objective.needs_reference:
            reference = self.reference(batch)
        else:
            reference = tokens.logps.new_zeros(trees.responses)
        return response_logps(trees, tokens, reference, reference_tokens, objective.token_fields)

    def reference(self, batch: Batch) -> Tensor:
        """Log-probabilities under the reference, ``[responses]``."""
        trees = batch.trees

        def compute() -> Tensor:
            tokens = self._compute_reference(trees)
            return sum_by_response(tokens, trees.owner, trees.responses)

        if self.cache_reference is None:
            sizes = [len(tree.responses) for tree in batch.source]
            return self._reference.get_or_compute(batch.source, sizes, compute)
        if self._cache is None:
            fingerprint = f"{self._reference.fingerprint()}-{tokenizer_fingerprint(self.tokenizer)}"
            self._cache = ReferenceCache(Path(self.cache_reference), fingerprint, self.global_rank)
        return numbers_to_device(
            self._cache.get_or_compute(batch.source, compute), trees.input_ids.device
        )

    def reference_tokens(self, batch: Batch) -> Tensor:
        """Log-probabilities of the scored tokens under the reference, ``[n]``."""
        sizes = [tree.num_scored for tree in batch.source]
        return self._reference.get_or_compute(
            batch.source, sizes, lambda: self._compute_reference(batch.trees)
        )

    def _compute_reference(self, trees: PackedTrees) -> Tensor:
        with torch.no_grad(), self.adapters.activate("reference", training=False):
            return self.tree_forward(trees).logps


def _check_objective(objective: Objective) -> None:
    name = type(objective).__name__
    if not family_name(type(objective)):
        raise ConfigError(
            f"{name} belongs to no family of objectives; derive it from PairwiseObjective or a sibling"
        )
    if objective.label_kind == LabelKind.DEMONSTRATIONS:
        raise ConfigError(f"{name} learns from demonstrations; use the stage SFT")
    if objective.label_kind == LabelKind.PROMPTS:
        raise ConfigError(f"{name} learns from rewards of sampled responses; use the stage RL")
    if objective.for_reward_model:
        stage = "ProcessRewardModel" if objective.label_kind == LabelKind.STEPS else "RewardModel"
        raise ConfigError(f"{name} learns scores of a reward model; use the stage {stage}")


def _check_targets(objective: PairwiseObjective, batch: Batch) -> None:
    lacking = [tree.group.source for tree in batch.source if tree.group.target is None]
    if objective.needs_target and lacking:
        raise DataError(
            f"{lacking[0]} has no reference answer (target), which {objective} trains towards; add one to every row, "
            "or train towards the chosen response"
        )
