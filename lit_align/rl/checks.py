"""Checks of RL's settings."""

from __future__ import annotations

from typing import Protocol

from lit_align.advantages import Advantage
from lit_align.checks import check_between, check_positive
from lit_align.errors import ConfigError
from lit_align.models.lora import Lora
from lit_align.models.samplers import Sampler
from lit_align.rl.critic import Critic


class RLSettings(Protocol):
    """Settings of an RL stage that are checked."""

    advantage: Advantage
    critic: Critic
    lora: Lora
    num_generations: int
    num_iterations: int
    num_minibatches: int
    max_new_tokens: int
    temperature: float
    target_kl: float | None
    importance_sampling_cap: float | None
    staleness: int


def check_settings(stage: RLSettings) -> None:
    """Refuse settings that are not over 0, dropout, and a critic or number of responses that the advantage cannot use.

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
    check_between("staleness", stage.staleness, 0, 1, "steps between sampling and learning")
    if stage.lora.dropout:
        raise ConfigError(
            f"lora.dropout is {stage.lora.dropout}, which would make ratios noise; set it to 0"
        )


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
