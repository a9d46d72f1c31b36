"""Checks of RL's settings, and of the stage's place among processes."""

from __future__ import annotations

from collections.abc import Mapping

from lit_align.advantages import Advantage
from lit_align.checks import check_positive
from lit_align.errors import ConfigError
from lit_align.rl.critic import Critic


def check_limits(settings: Mapping[str, float | None]) -> None:
    """Refuse settings that are not over 0; those that are None are off.

    Raises:
        ConfigError: naming the setting.
    """
    for name, value in settings.items():
        if value is not None:
            check_positive(name, value)


def check_advantage(advantage: Advantage, critic: Critic, num_generations: int) -> None:
    """Refuse an estimator that needs more responses to a prompt, and a critic that nothing uses.

    Raises:
        ConfigError: naming the settings.
    """
    estimator = type(advantage).__name__
    if num_generations < advantage.min_generations:
        raise ConfigError(
            f"num_generations is {num_generations}, and {estimator} compares at least "
            f"{advantage.min_generations} responses to a prompt; raise num_generations"
        )
    if critic.init_from is not None and not advantage.needs_critic:
        raise ConfigError(
            f"critic.init_from is {critic.init_from!r}, and {estimator} needs no critic; set it to null"
        )


def check_dropout(dropout: float) -> None:
    """Refuse dropout in the adapters.

    Raises:
        ConfigError: naming it.
    """
    if dropout:
        raise ConfigError(f"lora.dropout is {dropout}, which would make ratios noise; set it to 0")


def check_world_size(world_size: int) -> None:
    """Refuse several processes.

    Raises:
        ConfigError: naming their number.
    """
    if world_size > 1:
        raise ConfigError(
            f"RL runs on one process, and there are {world_size}; set trainer.devices to 1"
        )
