"""Stage 3b: align on feedback directly (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lit_align.errors import ConfigError, DataError, TrainingError
from lit_align.functional.logps import pad_by_response, sum_by_response
from lit_align.models.fingerprint import adapter_fingerprint
from lit_align.models.load import tokenizer_fingerprint
from lit_align.models.reference_cache import ReferenceCache
from lit_align.objectives import Objective, PairwiseObjective, RankedObjective, UnpairedObjective
from lit_align.stages import preference_losses
from lit_align.stages.kto_baseline import RunningBaseline
from lit_align.stages.language_model_stage import LanguageModelStage
from lit_align.stages.preference_losses import Judged, Sums
from lit_align.types import (
    Batch,
    Logps,
    PackedTrees,
    PairLabels,
    PerTokenLogps,
    RankLabels,
    Step,
    TokenLogps,
    UnpairedLabels,
)

RARER = -1.0  # nats a chosen response may lose before that is worth a line


class Preference(LanguageModelStage):
    """Fine-tune on feedback without a reward model: DPO and its family, KTO, rankings.

    The loss is the mean over the comparisons, thumbs or rankings of a whole step. A label that is right with
    probability p counts as p L(a, b) + (1 - p) L(b, a), with any objective over pairs or thumbs; what only imitates the
    chosen response counts with p.

    Args:
        objective: the loss, such as DPO over pairs, KTO over thumbs or PlackettLuceDPO over rankings.
        label_noise: chance that any label is flipped; folded into every label's probability.
        cache_reference: folder for the reference's log-probabilities, which the next epoch or run then reads instead of
            computing them.
        baseline_size: how many of the newest responses the baseline of KTO or BCO is the mean of, whole steps at a
            time. Those of earlier steps come from earlier policies, so it lags behind; a single step's is noisy.
        settings: everything that all stages share.
    """

    def __init__(
        self,
        objective: Objective,
        label_noise: float = 0.0,
        cache_reference: str | None = None,
        baseline_size: int = 64,
        **settings: Any,
    ) -> None:
        super().__init__(objective, **settings)
        if objective.label_kind == "demonstrations":
            raise ConfigError(
                f"{type(objective).__name__} learns from demonstrations; use the stage SFT"
            )
        if objective.label_kind == "prompts":
            raise ConfigError(
                f"{type(objective).__name__} learns from rewards of what is sampled; use the stage RL"
            )
        if objective.for_reward_model:
            raise ConfigError(
                f"{type(objective).__name__} learns scores of a reward model; use the stage RewardModel"
            )
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
                f"cache_reference keeps a number a response, but {type(objective).__name__} reads tokens; leave it out"
            )
        self.label_noise, self.cache_reference = label_noise, cache_reference
        self.baseline = RunningBaseline(baseline_size)
        self._cache: ReferenceCache | None = None
        self._warned = False

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Metric names, as dashboards know them."""
        more: tuple[str, ...] = preference_losses.COMPARED
        if isinstance(self.objective, UnpairedObjective):
            more = ("kl",)
        elif isinstance(self.objective, PairwiseObjective) and self.objective.needs_reference:
            more += preference_losses.SHIFTS
        return (*preference_losses.SIDES, *more, *preference_losses.TOKENS)

    @property
    def mismatched(self) -> bool:
        """Whether trees need a response to another prompt: KTO's baseline is measured on it."""
        return isinstance(self.objective, UnpairedObjective) and self.objective.baseline == "kl"

    def loss_denominator(self, step: Step) -> int:
        """Comparisons, thumbs or rankings."""
        return step.items

    def training_step(self, step: Step, batch_idx: int) -> None:
        """Learn from one step, unless its items were meant to be seen together and are not."""
        if self.objective.couples_batch and (len(step.batches) > 1 or self.trainer.world_size > 1):
            raise TrainingError(
                f"{type(self.objective).__name__} looks at all items of a step together, and this step was cut into "
                f"{len(step.batches)} micro-batches on {self.trainer.world_size} processes; raise data.token_budget or "
                "lower data.batch_size until one holds it, on one process"
            )
        super().training_step(step, batch_idx)

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, Sums]:
        """Summed loss of the labels."""
        tokens = self.tree_forward(
            batch.trees, statistics=statistics or "collision" in self.objective.token_fields
        )
        judged = self.judged(batch, tokens)
        sums = (
            {**judged.sums, **preference_losses.dashboard(batch.trees, tokens, judged)}
            if statistics
            else judged.sums
        )
        return judged.losses.sum(), sums

    def judged(self, batch: Batch, tokens: TokenLogps) -> Judged:
        """Loss of each label, and its figures, from the log-probabilities of the batch's tokens."""
        logps = self.logps(batch, tokens)
        match self.objective, batch:
            case PairwiseObjective() as pairwise, Batch(pairs=PairLabels() as labels):
                self._check_target(pairwise, batch)
                return preference_losses.pairs(pairwise, labels, logps, self.label_noise)
            case UnpairedObjective() as unpaired, Batch(unpaired=UnpairedLabels() as labels):
                baseline = self.baseline().to(logps.policy)
                return preference_losses.unpaired(
                    unpaired, labels, logps, self.label_noise, baseline
                )
            case RankedObjective() as ranked, Batch(rankings=RankLabels() as labels):
                return preference_losses.rankings(ranked, labels, logps)
            case other, _:
                raise DataError(
                    f"{batch.source[0].group.source} carries no label that {other} takes; use other data"
                )

    def _check_target(self, objective: PairwiseObjective, batch: Batch) -> None:
        lacking = [tree.group.source for tree in batch.source if tree.group.target is None]
        if objective.needs_target and lacking:
            raise DataError(
                f"{lacking[0]} names no target, which {objective} holds the policy to; add one to every row, or hold "
                "it to the chosen response"
            )

    def after_step(self, metrics: dict[str, float], sums: dict[str, tuple[float, float]]) -> None:
        """Take the step into the running baseline, and say so when chosen responses begin to become rarer."""
        if not self._warned and metrics.get("shift/chosen", 0.0) < RARER:
            self._warned = True
            rank_zero_info(
                f"step {self.global_step}: chosen responses are {-metrics['shift/chosen']:.1f} nats rarer than before "
                f"training, rejected ones {metrics['shift/rejected']:+.1f}; the end of the run will say where that went"
            )
        if isinstance(self.objective, UnpairedObjective):
            sides = ("rewards/chosen", "rewards/rejected")
            if all(side in metrics for side in sides):
                metrics["rewards/margins"] = metrics[sides[0]] - metrics[sides[1]]
            if self.objective.baseline != "none":
                self.baseline.add(
                    {kind: sums[kind] for kind in (("kl",) if self.mismatched else sides)}
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the running baseline too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["baseline"] = self.baseline.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the saved baseline."""
        super().on_load_checkpoint(checkpoint)
        self.baseline.steps = list(checkpoint["baseline"])

    # ------------------------------------------------------------------ log-probabilities

    def logps(self, batch: Batch, tokens: TokenLogps) -> Logps:
        """Log-probabilities of the batch's responses, ``[responses]``, from those of its tokens."""
        trees, objective = batch.trees, self.objective
        length = torch.bincount(trees.owner, minlength=trees.responses)
        policy = sum_by_response(tokens.logps, trees.owner, trees.responses)
        if "reference" in objective.token_fields:
            by_token = self._score(trees)
            reference = sum_by_response(by_token, trees.owner, trees.responses)
        else:
            by_token, reference = (
                None,
                self.reference(batch) if objective.needs_reference else torch.zeros_like(policy),
            )
        if not objective.token_fields:
            return Logps(policy, reference, length)
        fields = {"policy": tokens.logps, "reference": by_token, "collision": tokens.collision}
        asked = {name: value for name, value in fields.items() if value is not None}
        spread = {
            name: pad_by_response(value, trees.owner, trees.responses)
            for name, value in asked.items()
        }
        return Logps(policy, reference, length, PerTokenLogps(**spread))

    def reference(self, batch: Batch) -> Tensor:
        """Log-probabilities under the reference, ``[responses]``."""
        trees = batch.trees

        def compute() -> Tensor:
            return sum_by_response(self._score(trees), trees.owner, trees.responses)

        if self.cache_reference is None:
            return compute()
        if self._cache is None:
            fingerprint = f"{adapter_fingerprint(self.adapters, 'reference')}-{tokenizer_fingerprint(self.tokenizer)}"
            self._cache = ReferenceCache(Path(self.cache_reference), fingerprint, self.global_rank)
        return self._cache.get_or_compute(batch.source, compute).to(self.device)

    def _score(self, trees: PackedTrees) -> Tensor:
        """Log-probabilities of the scored tokens under the reference, ``[n]``."""
        with torch.no_grad(), self.adapters.activate("reference", training=False):
            return self.tree_forward(trees).logps
