"""Checks of numeric settings: each raises one sentence with the setting, its value and the remedy."""

from __future__ import annotations

from lit_align.errors import ConfigError


def check_positive(name: str, value: float, hint: str = "") -> None:
    """Require ``value > 0``; NaN fails.

    Args:
        name: the setting, as the user writes it.
        value: what it is set to.
        hint: usual values, or what to do instead; appended to the message.

    Raises:
        ConfigError: if it is not.

    Example:
        >>> check_positive("beta", 0.1)
        >>> check_positive("beta", -1.0, "the paper uses 0.1 to 0.5")
        Traceback (most recent call last):
        lit_align.errors.ConfigError: beta must be positive, got -1.0; the paper uses 0.1 to 0.5
    """
    _require(value > 0, name, "be positive", value, hint)


def check_at_least(name: str, value: float, minimum: float, hint: str = "") -> None:
    """Require ``value >= minimum``; arguments and errors as for `check_positive`."""
    _require(value >= minimum, name, f"be at least {minimum}", value, hint)


def check_between(name: str, value: float, low: float, high: float, hint: str = "") -> None:
    """Require ``low <= value <= high``; arguments and errors as for `check_positive`."""
    _require(low <= value <= high, name, f"be between {low} and {high}", value, hint)


def check_fraction(name: str, value: float, hint: str = "") -> None:
    """Require ``0 <= value <= 1``; arguments and errors as for `check_positive`."""
    check_between(name, value, 0, 1, hint)


def _require(holds: bool, name: str, condition: str, value: float, hint: str) -> None:
    if not holds:
        remedy = f"; {hint}" if hint else ""
        raise ConfigError(f"{name} must {condition}, got {value}{remedy}")
