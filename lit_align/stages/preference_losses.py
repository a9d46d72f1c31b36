"""Losses and metrics of each family of objectives over its labels: pairs, binary labels, rankings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_align.batch_labels import PairLabels, RankLabels, Sides, UnpairedLabels
from lit_align.data.transfer import numbers_to_device
from lit_align.errors import DataError
from lit_align.objectives import (
    PairwiseObjective,
    RankedObjective,
    RatedObjective,
    UnpairedObjective,
)
from lit_align.plugin_contracts import require_losses
from lit_align.stages.exact_step import MetricSums
from lit_align.types import Logps, TokenLogps, Tree

SIDE_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
    "logits/chosen",
    "logits/rejected",
)
MARGIN_METRICS = ("rewards/margins", "rewards/accuracies")
SHIFT_METRICS = ("shift/chosen", "shift/rejected")
TOKEN_METRICS = ("entropy", "mean_token_accuracy")


class PreferenceLosses(NamedTuple):
    """Losses and metrics of one micro-batch.

    Args:
        losses: ``[items]``.
        sums: metrics.
        tokens: scored tokens of the preferred responses and of the others; None if there are no metrics of tokens.
    """

    losses: Tensor
    sums: MetricSums
    tokens: Sides | None = None


def pairwise_losses(
    objective: PairwiseObjective, labels: PairLabels, logps: Logps, label_noise: float
) -> PreferenceLosses:
    """Loss of each pair: p L(a, b) + (1 - p) L(b, a) where the label is right with probability p.

    The part of the loss that imitates the chosen response counts with p alone.

    Args:
        objective: the loss.
        labels: the pairs.
        logps: of the batch's responses.
        label_noise: chance that a label is flipped.
    """
    chosen = logps.take(labels.chosen)
    rejected = logps.take(labels.rejected)
    inputs: dict[str, Any] = {}
    if objective.needs_target:
        inputs["target"] = logps.take(labels.target)
    flipped_inputs = dict(inputs)
    if objective.needs_margin:
        inputs["margin"] = labels.margin
        flipped_inputs["margin"] = -labels.margin
    losses = objective(chosen, rejected, **inputs)
    require_losses(objective, losses, chosen.policy, len(chosen.policy), "pairs")
    p = labels.probability
    p = p * (1 - label_noise) + (1 - p) * label_noise
    if label_noise or not _are_certain(labels):
        if objective.couples_batch:
            raise DataError(
                f"{objective} cannot use labels with a probability below 1; use another loss, or other data"
            )
        supervised = objective.supervised_term(rejected)
        flipped = objective(rejected, chosen, **flipped_inputs) - supervised
        losses = p * losses + (1 - p) * flipped
    with torch.no_grad():
        chosen_rewards = objective.implicit_reward(chosen)
        rejected_rewards = objective.implicit_reward(rejected)
        sums = _side_sums(chosen_rewards, rejected_rewards, chosen.policy, rejected.policy)
        sums["rewards/margins"] = _sum_and_count(chosen_rewards - rejected_rewards)
        sums["rewards/accuracies"] = _sum_and_count(_wins(chosen_rewards, rejected_rewards))
        if objective.needs_reference:
            sums["shift/chosen"] = _sum_and_count(chosen.policy - chosen.reference)
            sums["shift/rejected"] = _sum_and_count(rejected.policy - rejected.reference)
    return PreferenceLosses(losses, sums, labels.tokens)


def _are_certain(labels: PairLabels) -> bool:
    """Whether every probability is 1; only labels that were not packed have to be read."""
    if labels.are_certain is None:
        return not bool((labels.probability < 1).any())
    return labels.are_certain


def unpaired_losses(
    objective: UnpairedObjective,
    labels: UnpairedLabels,
    logps: Logps,
    label_noise: float,
    baseline: Tensor,
) -> PreferenceLosses:
    """Loss of each binary label: p L(up) + (1 - p) L(down) where "up" is right with probability p, or vice versa.

    Args:
        objective: the loss.
        labels: the labelled responses, and those to other prompts.
        logps: of the batch's responses.
        label_noise: chance that a label is flipped.
        baseline: running estimate that the objective subtracts, ``[]``.
    """
    desirable = labels.desirable
    responses = logps.take(labels.response)
    losses = objective(responses, desirable, baseline)
    require_losses(objective, losses, responses.policy, len(responses.policy), "responses")
    if label_noise:
        flipped = objective(responses, ~desirable, baseline)
        losses = (1 - label_noise) * losses + label_noise * flipped
    chosen, rejected = labels.places
    with torch.no_grad():
        policy = responses.policy
        rewards = objective.implicit_reward(responses)
        sums = _side_sums(rewards[chosen], rewards[rejected], policy[chosen], policy[rejected])
        mismatched = logps.take(labels.mismatched)
        sums["kl"] = _sum_and_count(mismatched.policy - mismatched.reference)
    return PreferenceLosses(losses, sums, labels.tokens)


def ranked_losses(objective: RankedObjective, labels: RankLabels, logps: Logps) -> PreferenceLosses:
    """Loss of each ranking; for metrics its best response counts as chosen and its last one as rejected."""
    order, place = labels.order, labels.place
    is_ranked = order >= 0
    last_index = is_ranked.sum(1, keepdim=True) - 1
    first = order[:, 0]
    last = order.gather(1, last_index)[:, 0]
    with torch.no_grad():
        policy = logps.policy
        rewards = objective.implicit_reward(logps)
        ranked_rewards = rewards[order.clamp(min=0)]
        wins = _wins(ranked_rewards[:, :, None], ranked_rewards[:, None])
        is_comparison = _is_comparison(is_ranked, place).float()
        sums = _side_sums(rewards[first], rewards[last], policy[first], policy[last])
        sums["rewards/margins"] = _sum_and_count(rewards[first] - rewards[last])
        sums["rewards/accuracies"] = ((wins * is_comparison).sum(), is_comparison.sum())
    losses = objective(logps, order, place)
    require_losses(objective, losses, logps.policy, len(order), "rankings")
    return PreferenceLosses(losses, sums, labels.tokens)


def _wins(first: Tensor, second: Tensor) -> Tensor:
    """1 where the first reward is larger, 0 where the second is, 1/2 for a tie, as at the first step of DPO."""
    return (first > second).float() + 0.5 * (first == second).float()


def token_metrics(tokens: TokenLogps, result: PreferenceLosses) -> MetricSums:
    """Metrics over tokens; ``tokens`` must have the policy's statistics."""
    assert tokens.entropy is not None
    assert tokens.mean_logit is not None
    assert tokens.top1 is not None
    assert result.tokens is not None
    chosen, rejected = result.tokens
    return {
        "entropy": _sum_and_count(tokens.entropy),
        "logits/chosen": _sum_and_count(tokens.mean_logit[chosen]),
        "mean_token_accuracy": _sum_and_count(tokens.top1[chosen].float()),
        "logits/rejected": _sum_and_count(tokens.mean_logit[rejected]),
    }


def _is_comparison(is_ranked: Tensor, place: Tensor) -> Tensor:
    """Which pairs of ranks are comparisons, ``[rankings, K, K]``, the better one first; ties are not."""
    is_better = place[:, :, None] < place[:, None]
    return is_better & is_ranked[:, :, None] & is_ranked[:, None]


def _sum_and_count(values: Tensor) -> tuple[Tensor, float]:
    return values.sum(), float(values.numel())


def _side_sums(
    chosen_rewards: Tensor, rejected_rewards: Tensor, chosen_logps: Tensor, rejected_logps: Tensor
) -> MetricSums:
    return {
        "rewards/chosen": _sum_and_count(chosen_rewards),
        "rewards/rejected": _sum_and_count(rejected_rewards),
        "logps/chosen": _sum_and_count(chosen_logps),
        "logps/rejected": _sum_and_count(rejected_logps),
    }


def rating_losses(
    objective: RatedObjective, scores: Tensor, trees: Sequence[Tree]
) -> PreferenceLosses:
    """Losses of rated responses, ``[responses]``, from their scores, ``[responses, attributes]``.

    The metrics are the absolute errors of each attribute, over the responses that were rated on it.
    """
    rows = []  # [responses, attributes], NaN where a response was not rated
    for tree in trees:
        for rating in tree.group.ratings:
            rows.append([rating.get(name, math.nan) for name in objective.attributes])
    ratings = numbers_to_device(torch.tensor(rows, dtype=scores.dtype), scores.device)
    sums: MetricSums = {}
    with torch.no_grad():
        errors = (scores - ratings).abs().nan_to_num()
        is_rated = ratings.isfinite().float()
        columns = zip(objective.attributes, errors.T, is_rated.T, strict=True)
        for name, column_errors, column_is_rated in columns:
            sums[f"errors/{name}"] = (column_errors.sum(), column_is_rated.sum())
    losses = objective(scores, ratings)
    require_losses(objective, losses, scores, len(scores), "responses")
    return PreferenceLosses(losses, sums)
