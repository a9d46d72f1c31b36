"""How each family of objectives meets its labels: the losses, and the figures that dashboards of this field know."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.errors import DataError
from lit_align.objectives import PairwiseObjective, RankedObjective, UnpairedObjective
from lit_align.types import Logps, PackedTrees, PairLabels, RankLabels, TokenLogps, UnpairedLabels

Sums = dict[str, tuple[Tensor, Tensor]]
"""Metrics of one micro-batch: name → (sum, count), so that micro-batches and ranks add up."""

SIDES = tuple(
    f"{what}/{side}" for what in ("rewards", "logps", "logits") for side in ("chosen", "rejected")
)
COMPARED = ("rewards/margins", "rewards/accuracies")
SHIFTS = ("shift/chosen", "shift/rejected")
TOKENS = ("entropy", "mean_token_accuracy")


class Judged(NamedTuple):
    """What a family made of one micro-batch.

    Args:
        losses: ``[items]``.
        chosen: responses of the batch that were preferred, for the dashboard.
        rejected: those that were not.
        sums: metrics.
    """

    losses: Tensor
    chosen: Tensor
    rejected: Tensor
    sums: Sums


def pairs(objective: PairwiseObjective, labels: PairLabels, logps: Logps, noise: float) -> Judged:
    """A comparison that is right with probability p costs p L(a, b) + (1 - p) L(b, a).

    What only imitates the chosen response counts with p.
    """
    chosen, rejected = logps.take(labels.chosen), logps.take(labels.rejected)
    held: dict[str, Any] = {"target": logps.take(labels.target)} if objective.needs_target else {}
    margin = {"margin": labels.margin} if objective.needs_margin else {}
    losses = objective(chosen, rejected, **held, **margin)
    p = labels.probability * (1 - noise) + (1 - labels.probability) * noise
    if (p < 1).any():
        if objective.couples_batch:
            raise DataError(
                f"{objective} takes no label of a probability under 1; use another loss, or other data"
            )
        turned = {name: -value for name, value in margin.items()}
        losses = p * losses + (1 - p) * (
            objective(rejected, chosen, **held, **turned) - objective.supervised_term(rejected)
        )
    with torch.no_grad():
        better, worse = objective.implicit_reward(chosen), objective.implicit_reward(rejected)
        sums = _sides(better, worse, chosen.policy, rejected.policy)
        sums |= {
            "rewards/margins": _sum(better - worse),
            "rewards/accuracies": _sum((better > worse).float()),
        }
        if objective.needs_reference:
            sums |= {
                f"shift/{n}": _sum(x.policy - x.reference)
                for n, x in (("chosen", chosen), ("rejected", rejected))
            }
    return Judged(losses, labels.chosen, labels.rejected, sums)


def unpaired(
    objective: UnpairedObjective,
    labels: UnpairedLabels,
    logps: Logps,
    noise: float,
    baseline: Tensor,
) -> Judged:
    """A thumb that is right with probability p costs p L(up) + (1 - p) L(down), or the other way round."""
    response, up, mismatched = labels
    judged = logps.take(response)
    losses = objective(judged, up, baseline)
    if noise:
        losses = (1 - noise) * losses + noise * objective(judged, ~up, baseline)
    with torch.no_grad():
        rewards, others = objective.implicit_reward(judged), logps.take(mismatched)
        sums = _sides(rewards[up], rewards[~up], judged.policy[up], judged.policy[~up])
        sums["kl"] = _sum(others.policy - others.reference)
    return Judged(losses, response[up], response[~up], sums)


def rankings(objective: RankedObjective, labels: RankLabels, logps: Logps) -> Judged:
    """The best of a ranking stands for the chosen response, the last for the rejected one."""
    order, place = labels
    there = order >= 0
    first, last = order[:, 0], order.gather(1, there.sum(1, keepdim=True) - 1)[:, 0]
    with torch.no_grad():
        rewards = objective.implicit_reward(logps)
        placed = rewards[order.clamp(min=0)]
        right = (placed[:, :, None] > placed[:, None])[_implied(there, place)]
        sums = _sides(rewards[first], rewards[last], logps.policy[first], logps.policy[last])
        sums |= {
            "rewards/margins": _sum(rewards[first] - rewards[last]),
            "rewards/accuracies": _sum(right.float()),
        }
    return Judged(objective(logps, order, place), first, last, sums)


def dashboard(trees: PackedTrees, tokens: TokenLogps, judged: Judged) -> Sums:
    """Means over tokens; the policy's statistics must have been asked for."""
    assert tokens.entropy is not None
    assert tokens.mean_logit is not None
    assert tokens.top1 is not None
    sums = {"entropy": _sum(tokens.entropy)}
    for side, responses in (("chosen", judged.chosen), ("rejected", judged.rejected)):
        of_side = torch.isin(trees.owner, responses)
        sums[f"logits/{side}"] = _sum(tokens.mean_logit[of_side])
        if side == "chosen":
            sums["mean_token_accuracy"] = _sum(tokens.top1[of_side].float())
    return sums


def _implied(there: Tensor, place: Tensor) -> Tensor:
    """Which pairs of places are comparisons, ``[rankings, K, K]``: the better one first; ties are none."""
    return (place[:, :, None] < place[:, None]) & there[:, :, None] & there[:, None]


def _sum(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.sum(), values.new_tensor(float(values.numel()))


def _sides(better: Tensor, worse: Tensor, chosen: Tensor, rejected: Tensor) -> Sums:
    """Rewards and log-probabilities of both sides."""
    return {
        "rewards/chosen": _sum(better),
        "rewards/rejected": _sum(worse),
        "logps/chosen": _sum(chosen),
        "logps/rejected": _sum(rejected),
    }
