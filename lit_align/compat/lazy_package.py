"""A package whose ``__init__`` runs when something is asked of it that it was not given."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """An installed package before its ``__init__``; its modules can be imported, and belong to it from then on.

    Args:
        spec: of the installed package.
        given: names that it has already; its ``__init__`` gives them anew.
        after: what is done when its ``__init__`` has run.
    """

    def __init__(
        self, spec: ModuleSpec, given: Mapping[str, Any], after: Callable[[], None] | None = None
    ) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__path__ = list(spec.submodule_search_locations or [])
        self.__package__, self._after = spec.name, after
        self._logger = logging.getLogger(spec.name)  # as torchmetrics' modules import it
        with suppress(PackageNotFoundError):  # a package within another
            self.__version__ = version(spec.name)
        self.__dict__.update(given)

    def import_in_order(self) -> None:
        """From now on run the ``__init__`` before a module is imported, for modules that rely on its order."""
        self.__path__ = _OrderedPath(self)

    def run(self) -> None:
        """Run the ``__init__``; from here on this is a package as any other."""
        spec, after = self.__dict__["__spec__"], self.__dict__.pop("_after")
        self.__class__ = ModuleType  # type: ignore[assignment]
        self.__path__ = list(spec.submodule_search_locations or [])
        spec.loader.exec_module(self)
        if after is not None:
            after()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.run()
        return getattr(self, name)


class _OrderedPath(list[str]):
    """Where a package's modules are; they are looked for after its ``__init__`` has run."""

    def __init__(self, package: LazyPackage) -> None:
        super().__init__(package.__path__)
        self.package = package

    def __iter__(self) -> Iterator[str]:
        if isinstance(self.package, LazyPackage):  # its class changes
            self.package.run()
        return super().__iter__()


def put_lazy_package(
    name: str, given: Mapping[str, Any], after: Callable[[], None] | None = None
) -> LazyPackage | None:
    """Put a package among the imported modules; None where it is imported already or not installed.

    Args:
        name: of the package; its parent is imported.
        given: names that it has before its ``__init__`` runs.
        after: what is done when its ``__init__`` has run.
    """
    try:
        spec = None if name in sys.modules else find_spec(name)
    except ModuleNotFoundError:  # its parent
        spec = None
    if spec is None:
        return None
    package = sys.modules[name] = LazyPackage(spec, given, after)
    return package


def is_imported(name: str) -> bool:
    """Whether a module is imported, a package's ``__init__`` included."""
    module = sys.modules.get(name)
    return module is not None and not isinstance(module, LazyPackage)
