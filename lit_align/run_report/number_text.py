"""Numbers as they stand in tables, and as names are sorted by them."""

from __future__ import annotations

import re
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


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """A key to sort by, under which 9 is before 10.

    Example:
        >>> sorted(["dpo/10", "dpo/9"], key=natural_key)
        ['dpo/9', 'dpo/10']
    """
    key = []
    for part in re.split(r"(\d+)", text):
        is_number = part.isdecimal()
        key.append((is_number, int(part) if is_number else 0, part))
    return key
