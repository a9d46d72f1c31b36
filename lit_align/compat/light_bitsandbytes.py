"""Import bitsandbytes without the compiler that it sets up for functions which few computations call.

bitsandbytes calls ``torch.compile`` while it is imported, for the kernels of devices that have none of their own, and
that imports TorchInductor, for seconds; PEFT imports bitsandbytes whenever it adds LoRA layers, to whatever base.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

_compile = torch.compile


def late_compile(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """``torch.compile`` that compiles at the first call.

    Args:
        function: to compile; None to decorate with it.
        options: of ``torch.compile``.

    Example:
        >>> late_compile(lambda x: x + 1, backend="eager")(torch.zeros(1))
        tensor([1.])
    """
    if function is None:
        return lambda decorated: late_compile(decorated, **options)
    compiled: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not compiled:
            compiled.append(_compile(function, **options))
        return compiled[0](*args, **kwargs)

    return call


def import_bitsandbytes() -> None:
    """Import bitsandbytes where it is installed; does nothing where it is imported already."""
    if "bitsandbytes" in sys.modules:
        return
    torch.compile = late_compile  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:  # those who need it say so
        pass
    finally:
        torch.compile = _compile
