"""A package whose ``__init__`` runs when something is asked of it that it was not given."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_RUNNING = threading.RLock()
"""Held while an ``__init__`` runs: another thread waits for the end."""


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
        self.__dict__.update(given)

    def import_in_order(self) -> None:
        """From now on run the ``__init__`` before a module is imported, for modules that rely on its order."""
        sys.meta_path.insert(0, _InOrder(self))

    def run(self) -> None:
        """Run the ``__init__``; from here on this is a package as any other.

        Raises:
            Exception: what the ``__init__`` raises; the package is then not imported.
        """
        with _RUNNING:
            if not isinstance(self, LazyPackage):  # its class has changed meanwhile
                return
            spec, after = self.__dict__["__spec__"], self.__dict__.pop("_after")
            self.__class__ = ModuleType  # type: ignore[assignment]
            spec._initializing = True  # as the import system marks a module that is not complete
            try:
                spec.loader.exec_module(self)
            except BaseException:
                sys.modules.pop(spec.name, None)
                raise
            finally:
                spec._initializing = False
            if after is not None:
                after()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.run()
        return getattr(self, name)


class _InOrder(MetaPathFinder):
    """Runs a package's ``__init__`` before one of its modules is imported, which it may import itself."""

    def __init__(self, package: LazyPackage) -> None:
        self.package, self.prefix = package, f"{package.__name__}."

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith(self.prefix):
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        if isinstance(self.package, LazyPackage):
            self.package.run()
        # taken out, or the import system would follow the module's own spec and execute it again
        module = sys.modules.pop(fullname, None)
        return None if module is None else ModuleSpec(fullname, _Imported(module))


class _Imported(Loader):
    """Gives a module that is imported already, so that it is not executed a second time."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


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


def import_whole(name: str) -> Any:
    """A module whose ``__init__`` has run, now if not before.

    Args:
        name: of the module.
    """
    module = import_module(name)
    if isinstance(module, LazyPackage):
        module.run()
    return module


def is_imported(name: str) -> bool:
    """Whether a module is imported, a package's ``__init__`` included and at its end."""
    module = sys.modules.get(name)
    if module is None or isinstance(module, LazyPackage):
        return False
    return not getattr(module.__spec__, "_initializing", False)
