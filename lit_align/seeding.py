"""Seeds that depend on the run's seed and a counter alone, so that a resumed run draws the same numbers."""

from __future__ import annotations


def step_seed(seed: int, step: int) -> int:
    """Seed for one step, round or prompt; different for every counter below a million.

    Args:
        seed: seed of the run.
        step: counter of what is drawn for; may be negative.

    Example:
        >>> step_seed(1, 2)
        1000005
    """
    return seed * 1_000_003 + step
