"""Give Lightning the two classes that it takes from torchmetrics, without the package's other hundred.

``import torchmetrics`` imports every metric, with transformers, matplotlib and scipy, for seconds. Lightning takes
``Metric`` and ``MetricCollection``, each a module of its own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from lit_align.compat.lazy_package import put_lazy_package

PACKAGE = "torchmetrics"
PYPLOT = "matplotlib.pyplot"


class _LateModule(ModuleType):
    """A module that is imported at the first name that it was not given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)


def put_torchmetrics() -> None:
    """Put torchmetrics among the imported modules with its two classes; its ``__init__`` runs when more is asked."""
    # what its modules import from it, and what Lightning asks it
    given = {"_logger": logging.getLogger(PACKAGE), "__version__": version(PACKAGE)}
    package = put_lazy_package(PACKAGE, given)
    if package is None:
        return
    with _late_matplotlib():
        # which imports the class's module while it is imported itself, so it must come first
        import_module("torchmetrics.utilities")
        package.__dict__["Metric"] = import_module("torchmetrics.metric").Metric
        collections = import_module("torchmetrics.collections")
    package.__dict__["MetricCollection"] = collections.MetricCollection


@contextmanager
def _late_matplotlib() -> Iterator[None]:
    """Let torchmetrics name classes of matplotlib, in annotations, and its style, in decorators, without it."""
    if "matplotlib" in sys.modules or find_spec("matplotlib") is None:
        yield
        return
    classes = SimpleNamespace(Axes=object, Colormap=object)
    matplotlib, pyplot = _LateModule("matplotlib"), _LateModule(PYPLOT)
    matplotlib.__dict__.update(axes=classes, colors=classes, pyplot=pyplot, __path__=[])
    pyplot.__dict__.update(Figure=object, style=SimpleNamespace(context=_late_style))
    late = {"matplotlib": matplotlib, PYPLOT: pyplot, "matplotlib.axes": ModuleType("axes")}
    sys.modules.update(late)
    try:
        yield
    finally:
        for name in late:
            del sys.modules[name]
        # what torchmetrics holds of the two imports the real ones from now on
        for name in ("axes", "colors", "pyplot"):
            del matplotlib.__dict__[name]
        del pyplot.__dict__["Figure"], pyplot.__dict__["style"]


@contextmanager
def _late_style(*arguments: Any, **named_arguments: Any) -> Iterator[None]:
    """Matplotlib's ``style.context``, imported when a plot is drawn."""
    with import_module(PYPLOT).style.context(*arguments, **named_arguments):
        yield
