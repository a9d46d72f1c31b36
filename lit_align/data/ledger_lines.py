"""Lines of a ledger's table: reasons of a fate with examples, and counts by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

MAX_REASONS = 10  # printed for each fate
MAX_NAMES = 20  # printed of each kind


def reason_lines(
    fate: str,
    counts: Counter[tuple[str, str]],
    examples: Mapping[tuple[str, str], Sequence[str]],
) -> list[str]:
    """A line for each of the most common reasons of a fate.

    Args:
        fate: of the rows.
        counts: number of rows by fate and reason.
        examples: places of some of these rows.

    Example:
        >>> counts = Counter({("kept", ""): 7, ("malformed", "empty response"): 2})
        >>> reason_lines("malformed", counts, {("malformed", "empty response"): ["data/a.csv:2", "data/a.csv:5"]})
        ['         2  empty response  (a.csv:2, a.csv:5)']
    """
    reasons = []
    for (reason_fate, reason), count in counts.most_common():
        if reason_fate == fate and reason:
            reasons.append((reason, count))
    lines = []
    for reason, count in reasons[:MAX_REASONS]:
        line = f"  {count:>8,}  {reason}"
        places = examples.get((fate, reason), [])
        if places:
            names = ", ".join(Path(place).name for place in places)
            ellipsis = ", ..." if count > len(places) else ""
            line += f"  ({names}{ellipsis})"
        lines.append(line)
    if len(reasons) > MAX_REASONS:
        lines.append(f"  and {len(reasons) - MAX_REASONS:,} less common reasons")
    return lines


def most_common(counts: Counter[str]) -> str:
    """The most common names with their counts, and how many others there are."""
    names = [f"{name} ({count:,})" for name, count in counts.most_common(MAX_NAMES)]
    others = len(counts) - len(names)
    return ", ".join(names) + (f", and {others} others" if others else "")


def count_rows(count: int) -> str:
    """A number of rows in words."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"
