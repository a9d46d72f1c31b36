"""Figures written to PNG files, without a display."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DPI = 120


@contextmanager
def saved_subplots(path: Path, *grid: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """Figure and axes to draw on; the figure is saved as ``path`` at the end of the block, and closed.

    Args:
        path: the PNG file.
        grid: rows and columns, as ``plt.subplots`` takes them; one axis if left out.
        options: of ``plt.subplots``, such as ``figsize``; ``layout`` is constrained unless they say otherwise.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "line.png"
        ...     with saved_subplots(path, figsize=(5, 3.5)) as (figure, axis):
        ...         _ = axis.plot([1, 2, 3])
        ...     path.read_bytes()[1:4]
        b'PNG'
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(*grid, **{"layout": "constrained", **options})
    try:
        yield figure, axes
        figure.savefig(path, dpi=DPI)
    finally:
        plt.close(figure)
