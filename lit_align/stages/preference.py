"""Stage 3b: align on comparisons directly (Rafailov et al., 2023, https://arxiv.org/abs/2305.18290)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_align.batches import Batch, Logps, PackedTrees, Step, TokenLogps
from lit_align.errors import ConfigError
from lit_align.functional.logps import response_logps
from lit_align.models.reference import ReferenceCache
from lit_align.objectives import PairwiseObjective
from lit_align.stages.base import AlignmentModule, Sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Preference(AlignmentModule):
    """Fine-tune on comparisons without a reward model: DPO and its family.

    The loss is the mean over the comparisons of a whole step. A label that is right with probability p counts as
    p L(a, b) + (1 - p) L(b, a), with any objective.

    Args:
        objective: the loss of a pair, such as DPO.
        label_noise: chance that any label is flipped; folded into every label's probability.
        cache_reference: folder for the reference's log-probabilities, which the next epoch or run then reads instead of
            computing them.
        settings: everything that all stages share.
    """

    reports = (
        *(f"rewards/{what}" for what in ("chosen", "rejected", "margins", "accuracies")),
        *(f"{what}/{side}" for what in ("logps", "logits") for side in ("chosen", "rejected")),
        "entropy",
        "mean_token_accuracy",
    )

    def __init__(
        self,
        objective: PairwiseObjective,
        label_noise: float = 0.0,
        cache_reference: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(objective, **settings)
        if not 0 <= label_noise < 0.5:
            raise ConfigError(
                f"label_noise is the chance of a flipped label, at least 0 and under 0.5, got {label_noise}"
            )
        self.label_noise, self.cache_reference = label_noise, cache_reference
        self._cache: ReferenceCache | None = None

    def count(self, step: Step) -> int:
        """Comparisons."""
        return step.pairs

    def losses(self, batch: Batch, statistics: bool) -> tuple[Tensor, Sums]:
        """Summed loss of the comparisons."""
        assert batch.pairs is not None
        tokens = self.read(batch.trees, statistics=statistics)
        logps = self.logps(batch, tokens.logps)
        chosen, rejected = logps.take(batch.pairs.chosen), logps.take(batch.pairs.rejected)
        probability = batch.pairs.probability
        probability = probability * (1 - self.label_noise) + (1 - probability) * self.label_noise
        losses = self.objective(chosen, rejected)  # type: ignore[operator]
        if (probability < 1).any():
            losses = probability * losses + (1 - probability) * self.objective(rejected, chosen)  # type: ignore[operator]
        return losses.sum(), {**self._rewards(chosen, rejected), **_dashboard(batch, tokens)}

    def logps(self, batch: Batch, policy: Tensor) -> Logps:
        """Log-probabilities of the batch's responses, ``[responses]``, from those of its tokens, ``[n]``."""
        trees = batch.trees
        length = torch.bincount(trees.owner, minlength=trees.responses)
        summed = response_logps(policy, trees.owner, trees.responses)
        return Logps(
            summed, self.reference(batch) if self.objective.needs_reference else torch.zeros_like(summed), length
        )

    def reference(self, batch: Batch) -> Tensor:
        """Log-probabilities under the reference, ``[responses]``."""
        if self.cache_reference is None:
            return self._score(batch.trees)
        if self._cache is None:
            fingerprint = f"{self.roles.fingerprint('reference')}-{_template(self.tokenizer)}"
            self._cache = ReferenceCache(Path(self.cache_reference), fingerprint, self.global_rank)
        return self._cache.of(batch.source, lambda: self._score(batch.trees)).to(self.device)

    def _score(self, trees: PackedTrees) -> Tensor:
        with torch.no_grad(), self.roles.play("reference", training=False):
            return response_logps(self.read(trees).logps, trees.owner, trees.responses)

    def _rewards(self, chosen: Logps, rejected: Logps) -> Sums:
        objective: PairwiseObjective = self.objective  # type: ignore[assignment]
        with torch.no_grad():
            better, worse = objective.reward(chosen), objective.reward(rejected)
            n = better.new_tensor(float(len(better)))
            return {
                "rewards/chosen": (better.sum(), n),
                "rewards/rejected": (worse.sum(), n),
                "rewards/margins": ((better - worse).sum(), n),
                "rewards/accuracies": ((better > worse).float().sum(), n),
                "logps/chosen": (chosen.policy.sum(), n),
                "logps/rejected": (rejected.policy.sum(), n),
            }


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of a tokenizer and its chat template."""
    vocabulary = json.dumps([sorted(tokenizer.get_vocab().items()), str(tokenizer.chat_template)])
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def _dashboard(batch: Batch, tokens: TokenLogps) -> Sums:
    """The figures that dashboards of this field show, as means over tokens; empty unless they were asked for."""
    if tokens.entropy is None or tokens.mean_logit is None or tokens.top1 is None or batch.pairs is None:
        return {}
    n = tokens.logps.new_tensor(float(len(tokens.logps)))
    sums = {"entropy": (tokens.entropy.sum(), n)}
    for side, responses in (("chosen", batch.pairs.chosen), ("rejected", batch.pairs.rejected)):
        of_side = torch.isin(batch.trees.owner, responses)
        count = of_side.sum().float()
        sums[f"logits/{side}"] = (tokens.mean_logit[of_side].sum(), count)
        if side == "chosen":
            sums["mean_token_accuracy"] = (tokens.top1[of_side].float().sum(), count)
    return sums
