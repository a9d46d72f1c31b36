"""Numbers as they stand in tables."""

from __future__ import annotations

from typing import Any


def format_figure(value: Any) -> str:
    """A number with as many digits as one reads.

    Example:
        >>> format_figure(0.123456), format_figure(12345.6), format_figure(3e-05), format_figure(None)
        ('0.1235', '12,346', '3e-05', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, bool | str) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_duration(seconds: float) -> str:
    """Seconds in the units that one reads.

    Example:
        >>> format_duration(7384), format_duration(61.2), format_duration(9)
        ('2 h 3 min', '1 min 1 s', '9 s')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
