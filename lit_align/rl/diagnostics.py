"""Warn about scores, lengths, advantages, entropy, KL and a useless critic; draw reward against KL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_warn

from lit_align.plotting import saved_subplots
from lit_align.rl.gold_reward import GoldPoint, find_parting
from lit_align.rl.seen_prompts import SeenPoint, find_overlap_effect, seen_point

MAX_LENGTH_RATIO = 2.0
"""Responses that became this many times as long while scores rose may be hacking the reward."""
MIN_ENTROPY_SHARE = 0.2
"""Share of the first iteration's entropy below which the policy has collapsed."""
MAX_KL = 50.0
"""Nats per response beyond which the reward model is out of its distribution."""
MIN_EOS_RATE = 0.05
"""Share of responses that end by themselves below which nearly all are cut off."""
MIN_KL_ERRORS = -4.0
"""Standard errors below 0 from which a KL divergence that was estimated from samples is no chance."""
MIN_EXPLAINED_VARIANCE = -0.5
"""Explained variance below which the critic is worse than none."""

MAX_SAMPLER_KL = 0.1
"""Nats a token between what samples and the policy, beyond which they are not two computations of one model."""

MAX_EQUAL_SHARE = 0.5
"""Share of the responses to prompts without a difference, beyond which most of the sampling is for nothing."""


def find_problems(first: Mapping[str, float], current: Mapping[str, float]) -> dict[str, str]:
    """Problems that the metrics of an iteration show, by name, each with its remedy.

    Args:
        first: metrics of the first iteration.
        current: metrics of this iteration.

    Example:
        >>> first = {"objective/scores": 0.1, "objective/length": 20.0, "objective/entropy": 2.0, "objective/kl": 0.0}
        >>> current = {"objective/scores": 0.9, "objective/length": 60.0, "objective/entropy": 1.9, "objective/kl": 8.0}
        >>> print(*find_problems(first, current).values())
        scores rose from 0.10 to 0.90 while responses became 3.0 times as long: the reward may be paying for length; add
        a Length reward or a missing_eos_reward penalty
    """
    return {
        **_problems_of_scores(first, current),
        **_responses_left_out(current),
        **_problems_of_policy(first, current),
    }


def _problems_of_scores(first: Mapping[str, float], current: Mapping[str, float]) -> dict[str, str]:
    """Problems of responses, their scores and what is made of them."""
    problems = {}
    score, length = current["objective/scores"], current["objective/length"]
    explained_variance = current.get("val/explained_variance", 0.0)
    growth = length / first["objective/length"]
    if score > first["objective/scores"] and growth > MAX_LENGTH_RATIO:
        problems["length"] = (
            f"scores rose from {first['objective/scores']:.2f} to {score:.2f} while responses became {growth:.1f} "
            "times as long: the reward may be paying for length; add a Length reward or a missing_eos_reward penalty"
        )
    if current.get("objective/frac_scores_zero_std", 0.0) == 1:
        problems["scores"] = (
            f"the responses to each prompt all have the same score ({score:.2f} on average): none is better, so "
            "nothing is learned from the reward; use one that tells them apart, easier prompts, or more num_generations"
        )
    if current.get("objective/eos_rate", 1.0) < MIN_EOS_RATE:
        share = 1 - current["objective/eos_rate"]
        problems["eos"] = (
            f"{share:.0%} of responses were cut off after {length:.0f} tokens, before they ended: the "
            "reward reads unfinished answers; raise max_new_tokens, or train the model to end its answers with SFT"
        )
    if current.get("policy/max_advantage", 1.0) == 0 and "scores" not in problems:
        problems["advantages"] = (
            f"all advantages are 0 although scores differ (standard deviation {current['objective/scores_std']:.2g}): "
            "nothing is learned from them; compare reward_clip and missing_eos_reward with the scores, and the "
            "advantage with num_generations"
        )
    if explained_variance < MIN_EXPLAINED_VARIANCE:
        problems["critic"] = (
            f"the critic explains {explained_variance:.2f} of the variance of returns, worse than none: advantages are "
            "noise; raise critic.lr or num_generations, or use RLOO, which needs no critic"
        )
    return problems


def _problems_of_policy(first: Mapping[str, float], current: Mapping[str, float]) -> dict[str, str]:
    """Problems of the policy beside its reference, and of what samples beside the policy."""
    problems = {}
    first_entropy, entropy = first["objective/entropy"], current["objective/entropy"]
    kl, kl_error = current["objective/kl"], current.get("objective/kl_error", 0.0)
    if entropy < MIN_ENTROPY_SHARE * first_entropy:
        problems["entropy"] = (
            f"entropy fell from {first_entropy:.2f} to {entropy:.2f} nats a token: the policy repeats itself and has "
            "stopped exploring; raise kl.coefficient or lower the learning rate"
        )
    if kl > MAX_KL:
        problems["kl"] = (
            f"the policy is {kl:.0f} nats a response from its reference: the reward was never validated on such "
            "responses; raise kl.coefficient or set kl.target"
        )
    if kl_error and kl < MIN_KL_ERRORS * kl_error:
        problems["negative kl"] = (
            f"the KL to the reference is {kl:.3f} nats a response, {-kl / kl_error:.1f} standard errors below 0, which "
            "no divergence is: the responses are not those of the policy as it is scored; compare the temperature, "
            "top-p and weights of what samples with the policy's"
        )
    sampler_kl = current.get("policy/sampler_kl", 0.0)
    if sampler_kl > MAX_SAMPLER_KL:
        problems["sampler"] = (
            f"what samples is {sampler_kl:.2f} nats a token from the policy: a server may have kept an older adapter "
            "or have other base weights; compare them, or lower the learning rate if staleness is 1"
        )
    return problems


def _responses_left_out(current: Mapping[str, float]) -> dict[str, str]:
    """Problems of responses that nothing is learned from."""
    problems = {}
    unscored = current.get("objective/frac_unscored", 0.0)
    if unscored > 0:
        problems["unscored"] = (
            f"{unscored:.0%} of responses were not scored, or had too few companions that were: nothing is learned "
            "from them; objective/frac_unscored counts them"
        )
    equal = current.get("objective/frac_equal_dropped", 0.0)
    if equal > MAX_EQUAL_SHARE:
        problems["equal"] = (
            f"{equal:.0%} of responses were sampled for nothing, as all to their prompts score the same: use prompts "
            "of other difficulty, more num_generations, or equal_scores: refill"
        )
    return problems


@dataclass
class RunDiagnostics:
    """What a run has shown so far; plain values, saved in checkpoints.

    Args:
        first_metrics: metrics of the first iteration.
        warned: problems that were reported; each is reported once.
        kl_and_score: KL divergence and mean score of each iteration.
        gold: for each reward of weight 0, step, KL divergence, mean score and its own mean of each iteration.
        seen: for the score, under an empty name, and for each reward of weight 0: step, mean of prompts that the reward
            model has seen, and mean of the others, of each iteration that had both.
    """

    first_metrics: dict[str, float] = field(default_factory=dict)
    warned: list[str] = field(default_factory=list)
    kl_and_score: list[tuple[float, float]] = field(default_factory=list)
    gold: dict[str, list[tuple[int, float, float, float]]] = field(default_factory=dict)
    seen: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)

    def observe(self, metrics: dict[str, float], step: int, gold_names: Sequence[str] = ()) -> None:
        """Add an iteration, and warn about problems that it is the first to show.

        Args:
            metrics: of the iteration.
            step: its number.
            gold_names: rewards of weight 0, whose means are among the metrics.
        """
        if "objective/scores" not in metrics:  # not one response has a score
            rank_zero_warn(f"step {step}: no response was scored, so nothing is learned")
            return
        kl_and_score = (metrics["objective/kl"], metrics["objective/scores"])
        self.kl_and_score.append(kl_and_score)
        self.first_metrics = self.first_metrics or metrics
        problems = find_problems(self.first_metrics, metrics)
        for name in gold_names:
            value = metrics.get(f"rewards/{name}", math.nan)
            if not math.isfinite(value):
                continue
            points = self.gold.setdefault(name, [])
            points.append((step, *kl_and_score, value))
            parting = find_parting([GoldPoint(*point) for point in points], name)
            if parting is not None:
                problems[f"gold {name}"] = parting
        overlap = self._observe_seen(metrics, step, gold_names)
        if overlap is not None:
            problems["seen prompts"] = overlap
        for name, problem in problems.items():
            if name not in self.warned:
                self.warned.append(name)
                rank_zero_warn(f"step {step}: {problem}")

    def _observe_seen(
        self, metrics: dict[str, float], step: int, gold_names: Sequence[str]
    ) -> str | None:
        """Add the means of seen and of unseen prompts; in words, that they part, or None."""
        for name in ("", *gold_names):
            point = seen_point(metrics, step, name)
            if point is not None:
                means = (point.step, point.seen, point.unseen)
                self.seen.setdefault(name, []).append(means)
        points = {}
        for name, rows in self.seen.items():
            points[name] = [SeenPoint(*row) for row in rows]
        scores = points.pop("", [])
        return find_overlap_effect(scores, points)

    @property
    def has_curve(self) -> bool:
        """Whether there are two iterations to draw a line between."""
        return len(self.kl_and_score) > 1

    def draw_reward_kl(self, path: Path) -> None:
        """Draw score against KL of all iterations, if there are two (fig. 1 of Gao et al., 2023, https://arxiv.org/abs/2210.10760)."""
        from matplotlib.ticker import MaxNLocator

        if not self.has_curve:
            return
        kls, scores = zip(*self.kl_and_score, strict=True)
        size = (5 if not self.gold else 6.2, 3.5)
        with saved_subplots(path, figsize=size) as (figure, axis):
            axis.plot(kls, scores, color="0.8", zorder=1)
            points = axis.scatter(kls, scores, c=range(len(kls)), s=14, zorder=2, label="score")
            axis.set_xlabel("KL from the reference, nats per response")
            axis.set_ylabel("reward, mean score of a response")
            axis.set_title("Reward against KL")
            axis.grid(alpha=0.3)
            self._draw_gold(axis)
            figure.colorbar(points, label="iteration", ticks=MaxNLocator(integer=True))

    def _draw_gold(self, axis: Any) -> None:
        """Rewards of weight 0 beside the score, on an axis of their own: they may have another unit."""
        if not self.gold:
            return
        right = axis.twinx()
        for number, (name, points) in enumerate(self.gold.items()):
            _, kls, _, golds = zip(*points, strict=True)
            right.plot(
                kls, golds, "^", color=f"C{number + 1}", markersize=4, label=f"{name} (right)"
            )
        right.set_ylabel(f"{', '.join(self.gold)}, weight 0")
        handles = [
            handle for each in (axis, right) for handle in each.get_legend_handles_labels()[0]
        ]
        right.legend(handles=handles, fontsize=7)
