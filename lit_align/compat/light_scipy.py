"""Let scipy's optimisers be imported when they are used: transformers names one for losses of object detection."""

from __future__ import annotations

from typing import Any

from lit_align.compat.lazy_package import import_whole, put_lazy_package

OPTIMIZERS = "scipy.optimize"


def _linear_sum_assignment(*arguments: Any, **named_arguments: Any) -> Any:
    return import_whole(OPTIMIZERS).linear_sum_assignment(*arguments, **named_arguments)


def delay_scipy() -> None:
    """Let ``scipy.optimize`` be imported when it is used; does nothing where it is imported already."""
    package = put_lazy_package(OPTIMIZERS, {"linear_sum_assignment": _linear_sum_assignment})
    if package is not None:
        package.import_in_order()
