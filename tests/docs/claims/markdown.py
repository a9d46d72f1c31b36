"""Tables of figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column has names.

    Args:
        head: the title of each column.
        rows: the cells of each row.
    """
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def by_seed(seeds: Iterable[int], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table with a column for each seed.

    Args:
        seeds: their numbers.
        rows: the name of each row and its cells.
    """
    head = ["", *(f"seed {seed}" for seed in seeds)]
    return table(head, ([name, *cells] for name, cells in rows))


def percent(*shares: float) -> list[str]:
    """Shares as whole percentages.

    Example:
        >>> percent(0.124, 1)
        ['12 %', '100 %']
    """
    return [f"{100 * share:.0f} %" for share in shares]


def decimals(*values: float, digits: int = 2) -> list[str]:
    """Values with as many digits; none of them is a zero with a sign.

    Example:
        >>> decimals(-0.004, 1.236)
        ['0.00', '1.24']
    """
    return [f"{round(value, digits) + 0.0:.{digits}f}" for value in values]


def interval(bounds: Sequence[float], digits: int = 2, scale: float = 1) -> str:
    """Both ends of an interval.

    Args:
        bounds: lower and upper.
        digits: behind the point.
        scale: 100 for percentages.

    Example:
        >>> interval([0.5815, 0.6577], digits=0, scale=100)
        '58 to 66'
    """
    return " to ".join(decimals(*(scale * bound for bound in bounds), digits=digits))
