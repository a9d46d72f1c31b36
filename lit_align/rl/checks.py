"""Checks of RL's settings."""

from __future__ import annotations

import math
from typing import Any, Protocol

from lit_align.advantages import Advantage
from lit_align.checks import check_between, check_positive
from lit_align.errors import ConfigError
from lit_align.models.lora import Lora
from lit_align.models.samplers import Sampler
from lit_align.rewards import Reward
from lit_align.rewards.teacher import Teacher
from lit_align.rewards.weighted import Weighted
from lit_align.rl.critic import Critic
from lit_align.rl.kl_control import KLControl
from lit_align.rl.reward_shaping import RewardShaping
from lit_align.rl.selection import Selection
from lit_align.rl.teaching import lecture_of


class RLSettings(Protocol):
    """Settings of an RL stage that are checked."""

    objective: Any
    reward: Reward
    advantage: Advantage
    kl: KLControl
    shaping: RewardShaping
    critic: Critic
    lora: Lora
    num_generations: int
    num_iterations: int
    num_minibatches: int
    max_new_tokens: int
    temperature: float
    target_kl: float | None
    importance_sampling_cap: float | None
    whiten_rewards: bool
    staleness: int
    selection: Selection


def check_settings(stage: RLSettings) -> None:
    """Refuse settings that are not over 0, dropout, and what the advantage cannot use, such as a critic or a reward.

    Raises:
        ConfigError: naming the settings.
    """
    for name in ("num_generations", "num_iterations", "num_minibatches"):
        check_positive(name, getattr(stage, name))
    for name in ("max_new_tokens", "temperature", "target_kl", "importance_sampling_cap"):
        value = getattr(stage, name)
        if value is not None:
            check_positive(name, value)
    estimator = type(stage.advantage).__name__
    if stage.num_generations < stage.advantage.min_generations:
        raise ConfigError(
            f"num_generations is {stage.num_generations}, and {estimator} compares at least "
            f"{stage.advantage.min_generations} responses to a prompt; raise num_generations"
        )
    if stage.critic.init_from is not None and not stage.advantage.needs_critic:
        raise ConfigError(
            f"critic.init_from is {stage.critic.init_from!r}, and {estimator} needs no critic; set it to null"
        )
    if not stage.advantage.reads_rewards:
        _check_unshaped(stage, estimator)
    if stage.advantage.needs_teacher:
        _check_teacher(stage, estimator)
    lecture_of(stage.objective, stage.reward)
    stage.selection.check(stage.num_generations)
    _check_totals(stage)
    check_between("staleness", stage.staleness, 0, 1, "steps between sampling and learning")
    if stage.lora.dropout:
        raise ConfigError(
            f"lora.dropout is {stage.lora.dropout}, which would make ratios noise; set it to 0"
        )


def _check_unshaped(stage: RLSettings, estimator: str) -> None:
    """Refuse what changes rewards that the advantage does not read."""
    without = {
        "kl.coefficient": stage.kl.where == "reward" and stage.kl.coefficient,
        "missing_eos_reward": stage.shaping.missing_eos_reward is not None,
        "overlong_buffer": stage.shaping.overlong_buffer,
        "reward_clip": stage.shaping.reward_clip is not None,
        "whiten_rewards": stage.whiten_rewards,
    }
    for name, is_set in without.items():
        if is_set:
            remedy = "set kl.where to loss and kl.estimator to k2" if name.startswith("kl") else ""
            raise ConfigError(
                f"{name} changes the total reward, and {estimator} reads the parts of the scores alone; "
                f"{remedy or f'leave {name} out, or use GRPO'}"
            )
    if stage.selection.equal_scores != "keep":
        raise ConfigError(
            f"equal_scores is {stage.selection.equal_scores} and looks at the total reward, and {estimator} reads the "
            "parts of the scores alone, which may differ where totals are equal; set equal_scores to keep"
        )


def _check_totals(stage: RLSettings) -> None:
    """Refuse to look for a difference in total rewards where only teachers give any, which they do by token."""
    equal_scores = stage.selection.equal_scores
    if equal_scores != "keep" and only_teaches(stage.reward):
        raise ConfigError(
            f"equal_scores is {equal_scores} and looks at the total reward, and a Teacher gives its reward by token: "
            "every total is 0, so that every prompt would be left out; set equal_scores to keep"
        )


def _check_teacher(stage: RLSettings, estimator: str) -> None:
    """Refuse rewards that are not the log-probabilities of a teacher, as it gives them."""
    if stage.whiten_rewards:
        raise ConfigError(
            f"whiten_rewards is true, and {estimator} subtracts the policy's log-probabilities from those of a "
            "teacher, which are then no longer such; set whiten_rewards to false"
        )
    weights = teacher_weights(stage.reward)
    if not weights:
        raise ConfigError(
            f"reward is {stage.reward}, and {estimator} compares the policy with a teacher; set reward to Teacher, "
            "alone or in Weighted"
        )
    if not math.isclose(sum(weights), 1.0):
        raise ConfigError(
            f"the weight of Teacher in Weighted, divided by its deviation, is {sum(weights):g}, and {estimator} "
            "subtracts the policy's log-probabilities once; set the weight to 1 and the deviation to 1"
        )


def teacher_weights(reward: Reward) -> list[float]:
    """By what the log-probabilities of each teacher in a reward are multiplied.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> teacher_weights(Weighted([Teacher(), Length(max_words=9)], [1.0, 0.1], deviations=[2.0, 1.0]))
        [0.5]
    """
    if isinstance(reward, Teacher):
        return [1.0]
    weights = []
    if isinstance(reward, Weighted):
        for part, scale in zip(reward.rewards, reward.scales, strict=True):
            weights += [scale * weight for weight in teacher_weights(part)]
    return weights


def only_teaches(reward: Reward) -> bool:
    """Whether no part of a reward but teachers has a weight.

    Example:
        >>> from lit_align.rewards.length import Length
        >>> parts = [Teacher(), Length(max_words=9)]
        >>> [only_teaches(Weighted(parts, [1.0, weight])) for weight in (0.0, 0.1)]
        [True, False]
    """
    if isinstance(reward, Weighted):
        parts = zip(reward.rewards, reward.scales, strict=True)
        return all(not scale or only_teaches(part) for part, scale in parts)
    return isinstance(reward, Teacher)


def check_staleness(staleness: int, sampler: Sampler) -> None:
    """Refuse to sample ahead by a sampler that would keep the policy waiting all the same.

    Raises:
        ConfigError: naming both settings.
    """
    if staleness and type(sampler).start is Sampler.start:
        raise ConfigError(
            f"staleness is {staleness}, and {type(sampler).__name__} samples in this process, so that nothing is "
            "sampled while the policy learns: responses would be older for no gain; set staleness to 0, or sampler to "
            "Served"
        )
