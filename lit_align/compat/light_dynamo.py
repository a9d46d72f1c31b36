"""Do without torch's compiler until something is compiled.

torch's optimisers, Lightning and transformers name ``torch._dynamo`` to exclude functions from compilation, to mark
them, or to recognise compiled modules, and that imports it, for seconds. What they name is given here; the compiler
hears of the marks when it is imported, as it is at the first name that is not given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any, TypeVar

from lit_align.compat.lazy_package import import_whole, is_imported, put_lazy_package

Function = TypeVar("Function", bound=Callable[..., Any])

DYNAMO = "torch._dynamo"
MODULES = ("config", "_trace_wrapped_higher_order_op")
"""Its modules that checkpointing and transformers' masks import; they need no other of the compiler's."""


class _CompiledModules(type):
    """Recognises compiled modules: there are none before the compiler is imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        return is_imported(DYNAMO) and isinstance(instance, _compiler().OptimizedModule)


class OptimizedModule(metaclass=_CompiledModules):
    """Stands for the class of compiled modules in Lightning's checks."""


_marked: list[Callable[..., Any]] = []
"""Functions that the compiler puts into a graph as they are."""


def _compiler() -> Any:
    return sys.modules[DYNAMO]


def disable_compiling(function: Any = None, *options: Any, **named_options: Any) -> Any:
    """Exclude a function from compilation once there is a compiler.

    Args:
        function: that is excluded; None to decorate with it.
        options: of ``torch._dynamo.disable``.
        named_options: likewise.
    """
    if function is None:
        return lambda decorated: disable_compiling(decorated, *options, **named_options)
    if isinstance(function, type):  # its methods are excluded, in place
        return import_whole(DYNAMO).disable(function, *options, **named_options)
    excluded: list[Callable[..., Any]] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not excluded and is_imported(DYNAMO):
            excluded.append(_compiler().disable(function, *options, **named_options))
        return (excluded[0] if excluded else function)(*args, **kwargs)

    return call


def _assume_constant_result(function: Function) -> Function:
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def _allow_in_graph(function: Any) -> Any:
    if not callable(function):  # a list of them
        return import_whole(DYNAMO).allow_in_graph(function)
    _marked.append(function)
    return function


def _mark() -> None:
    while _marked:
        _compiler().allow_in_graph(_marked.pop(0))


def delay_dynamo() -> None:
    """Let the compiler be imported by what uses it; does nothing where it is imported already."""
    given = {
        "OptimizedModule": OptimizedModule,
        "disable": disable_compiling,
        "graph_break": lambda *arguments, **named_arguments: None,  # nothing is being compiled
        "assume_constant_result": _assume_constant_result,
        "allow_in_graph": _allow_in_graph,
    }
    package = put_lazy_package(DYNAMO, given, _mark)
    if package is not None:
        for module in MODULES:
            import_module(f"{DYNAMO}.{module}")
        package.import_in_order()
