"""Likelihood displacement: whether chosen responses became less probable, where the probability went, and why.

Losses that see only the difference of two responses may lower both, the rejected one faster; the probability then goes
to responses that are in no data set (Razin et al., 2024, https://arxiv.org/abs/2410.08847).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_align.batch_labels import PairLabels
from lit_align.data.datamodules import to_device
from lit_align.data.packing import pack
from lit_align.functional.logps import sum_by_response
from lit_align.objectives import PairwiseObjective
from lit_align.stages.preference import Preference
from lit_align.types import Batch, Tree

MIN_FALL = -0.1  # nats a response; a smaller fall is not explained
MIN_BUDGET = 2048  # tokens of a micro-batch
WIDTH = 118  # of the text


class Displacement(NamedTuple):
    """Change of log-probabilities since training began; means over pairs, in nats.

    Args:
        pairs: how many were measured.
        chosen: of the chosen response.
        rejected: of the rejected one.
        either: of either of the two, log (π_θ(y_w) + π_θ(y_l)) / (π_ref(y_w) + π_ref(y_l)); what they lost, all others
            won.
        slope: by how much a small step down the loss now raises the chosen response's log-probability, as far as it
            enters the loss itself: the loss's derivative, with its sign turned.
    """

    pairs: int
    chosen: float
    rejected: float
    either: float
    slope: float

    @classmethod
    def from_logps(cls, chosen: Tensor, rejected: Tensor, slopes: Tensor) -> Displacement:
        """From log-probabilities before and after, ``[2, pairs]`` each, and the slopes, ``[pairs]``."""
        logps = torch.stack([chosen, rejected, torch.logaddexp(chosen, rejected)])
        changes = (logps[:, 1] - logps[:, 0]).mean(1).tolist()
        return cls(chosen.shape[1], changes[0], changes[1], changes[2], float(slopes.mean()))

    def record(self, objective: PairwiseObjective) -> dict[str, float | str]:
        """The entry in ``summary.json``."""
        return {
            "pairs": self.pairs,
            "chosen": self.chosen,
            "rejected": self.rejected,
            "both": self.either,
            "pull": self.slope,
            "story": self.explain(objective),
        }

    def explain(self, objective: PairwiseObjective) -> str:
        """What happened and why, in two or three sentences.

        Example:
            >>> from lit_align.objectives.dpo import DPO
            >>> print(Displacement(8, -3.0, -20.0, -4.0, 0.01).explain(DPO()))
            Chosen responses became less probable: their log-probability changed by -3.0 nats on average over 8 pairs,
            that of rejected ones by -20.0 nats. What they lost went to responses that are in no pair. DPO allows it: it
            sees only the difference of the two, which grew by 17.0 nats. To keep chosen responses probable, train Mix
            with CrossEntropy, as configs/demo.yaml does.
            >>> print(Displacement(8, 2.0, -5.0, 1.5, 0.01).explain(DPO()))
            Chosen responses became more probable: their log-probability changed by +2.0 nats on average over 8 pairs,
            that of rejected ones by -5.0 nats.
        """
        direction = "more" if self.chosen > 0 else "less"
        sentences = [
            f"Chosen responses became {direction} probable: their log-probability changed by {self.chosen:+.1f} nats "
            f"on average over {self.pairs} pairs, that of rejected ones by {self.rejected:+.1f} nats."
        ]
        if not self.chosen > MIN_FALL:
            sentences += [self._destination(), self._reason(objective)]
        return textwrap.fill(" ".join(sentences), WIDTH)

    def _destination(self) -> str:
        if self.rejected <= 0:
            return "What they lost went to responses that are in no pair."
        if self.either < 0:
            return "Part of what they lost went to the rejected ones, the rest to responses that are in no pair."
        return "Part of what they lost went to the rejected ones."

    def _reason(self, objective: PairwiseObjective) -> str:
        name = type(objective).__name__
        if self.slope < 0:
            return f"{name} causes it: at the end of the run its gradient lowers the chosen response as well."
        if objective.margin_only:
            return (
                f"{name} allows it: it sees only the difference of the two, which grew by "
                f"{self.chosen - self.rejected:.1f} nats. To keep chosen responses probable, train Mix with "
                "CrossEntropy, as configs/demo.yaml does."
            )
        return (
            f"{name} does not cause it: its gradient raises the chosen response. Tokens that both responses share were "
            "lowered with the rejected one; try a lower learning rate, or more data."
        )


def measure_displacement(stage: Preference, trees: Sequence[Tree]) -> Displacement | None:
    """Compare policy and reference on the pairs of ``trees``; None if there are none."""
    if not trees:
        return None
    chosen, rejected, slopes = [], [], []
    budget = max(MIN_BUDGET, *(tree.tokens for tree in trees))
    for cpu_batch in pack(trees, budget=budget, dense=True):
        batch = to_device(cpu_batch, stage.device)
        if batch.pairs is not None:
            logps, chosen_slopes = _logps_and_slopes(stage, batch, batch.pairs)
            chosen.append(logps[:, batch.pairs.chosen])
            rejected.append(logps[:, batch.pairs.rejected])
            slopes.append(chosen_slopes)
    if not chosen:
        return None
    return Displacement.from_logps(torch.cat(chosen, 1), torch.cat(rejected, 1), torch.cat(slopes))


def _logps_and_slopes(stage: Preference, batch: Batch, labels: PairLabels) -> tuple[Tensor, Tensor]:
    """Log-probabilities under reference and policy, ``[2, responses]``, and slopes of the chosen ones, ``[pairs]``."""
    owner, num_responses = batch.trees.owner, batch.trees.responses
    logps = []
    for role in ("reference", "policy"):
        with torch.no_grad(), stage.adapters.activate(role, training=False):
            tokens = stage.tree_forward(batch.trees, statistics=role == "policy")
        logps.append(sum_by_response(tokens.logps, owner, num_responses))
    leaf = tokens.logps.detach().requires_grad_()
    loss = stage.label_losses(batch, tokens._replace(logps=leaf)).losses.sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    response_gradient = sum_by_response(gradient, owner, num_responses)
    return torch.stack(logps), -response_gradient[labels.chosen]
