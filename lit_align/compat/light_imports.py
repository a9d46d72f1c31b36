"""Import Lightning without two parts of other libraries that it names and few commands use.

Lightning imports ``torch._dynamo`` for the class of compiled modules and to exclude a function from compilation, and
torchmetrics imports ``scipy.signal`` to give a function its old name back. The two cost a third of all imports. While
Lightning is imported, a placeholder stands for each; it imports the real module for anything that it does not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

DYNAMO = "torch._dynamo"
SIGNAL = "scipy.signal"


class _Placeholder(ModuleType):
    """A module that is replaced by the real one as soon as something else of it is needed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(_remove(self)), name)


class _CompiledModules(type):
    """Recognises compiled modules: there are none before the compiler is imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        dynamo = sys.modules.get(DYNAMO)
        return dynamo is not None and isinstance(instance, dynamo.OptimizedModule)


class OptimizedModule(metaclass=_CompiledModules):
    """Stands for the class of compiled modules in Lightning's checks."""


def disable_compiling(function: Function, *options: Any, **named_options: Any) -> Function:
    """Exclude a function from compilation once there is a compiler.

    Args:
        function: that Lightning excludes.
        options: of ``torch._dynamo.disable``.
        named_options: likewise.
    """
    excluded: list[Function] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if DYNAMO in sys.modules and not excluded:
            disable = sys.modules[DYNAMO].disable
            excluded.append(disable(function, *options, **named_options))
        return (excluded[0] if excluded else function)(*args, **kwargs)

    return call  # type: ignore[return-value]


def import_lightning() -> None:
    """Import Lightning; does nothing where it is imported already."""
    if "lightning" in sys.modules:
        return
    import torch  # noqa: F401  # which imports no compiler

    placeholders = [_Placeholder(DYNAMO), _Placeholder(SIGNAL)]
    dynamo, signal = placeholders
    dynamo.__dict__.update(OptimizedModule=OptimizedModule, disable=disable_compiling)
    signal.__dict__.update(hamming=None)
    for placeholder in placeholders:
        sys.modules.setdefault(placeholder.__name__, placeholder)
    try:
        import lightning.pytorch  # noqa: F401
    finally:
        for placeholder in placeholders:
            _remove(placeholder)


def _remove(placeholder: ModuleType) -> str:
    """Take a placeholder out of the imported modules, and off the package that holds it."""
    name = placeholder.__name__
    package, _, attribute = name.rpartition(".")
    if sys.modules.get(name) is placeholder:
        del sys.modules[name]
    parent = sys.modules.get(package)
    if parent is not None and vars(parent).get(attribute) is placeholder:
        delattr(parent, attribute)
    return name
