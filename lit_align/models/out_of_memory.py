"""Replace torch's out-of-memory error by one that says which settings to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lit_align.errors import TrainingError


@contextmanager
def raise_out_of_memory(message: Callable[[], str]) -> Iterator[None]:
    """Raise ``message()`` when torch runs out of memory inside.

    Raises:
        TrainingError: with the message.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(message()) from error
