"""Lengths of the buffers that hold keys and values."""

GROWTH = 64
"""Tokens by which buffers grow, so that completions that end early do not take the memory of the longest."""
ALIGNMENT = 8
"""Attention kernels of CUDA copy a mask whose length is no multiple of this, in each layer."""


def round_up(length: int) -> int:
    """The next multiple of `ALIGNMENT`.

    Example:
        >>> round_up(8), round_up(9)
        (8, 16)
    """
    return -(-length // ALIGNMENT) * ALIGNMENT


def buffer_length(length: int, limit: int) -> int:
    """Tokens for which there is room once ``length`` are needed.

    Args:
        length: of the longest row.
        limit: largest length that it can come to.

    Example:
        >>> buffer_length(10, 200), buffer_length(10, 50), buffer_length(200, 200)
        (80, 56, 200)
    """
    return round_up(min(length + GROWTH, limit))
