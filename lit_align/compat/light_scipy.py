"""Let scipy's optimisers be imported when they are used: transformers names one for losses of object detection."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lit_align.compat.lazy_package import put_lazy_package


def _linear_sum_assignment(*arguments: Any, **named_arguments: Any) -> Any:
    optimizers: Any = import_module("scipy.optimize")
    if hasattr(optimizers, "run"):  # not yet imported
        optimizers.run()
    return optimizers.linear_sum_assignment(*arguments, **named_arguments)


def delay_scipy() -> None:
    """Let ``scipy.optimize`` be imported when it is used; does nothing where it is imported already."""
    package = put_lazy_package("scipy.optimize", {"linear_sum_assignment": _linear_sum_assignment})
    if package is not None:
        package.import_in_order()
