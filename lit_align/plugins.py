"""Find plugins, load them one by one, and remember what each one brought.

Built-in parts are plugins too: every module in a room below is loaded through the
same hooks as a third-party package, so a new file there is a new part. A plugin that
fails is left out and reported; it never stops a run that does not ask for it.
"""

from __future__ import annotations

import functools
import os
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

import pluggy

from lit_align import hookspecs
from lit_align.registry import Registry

GROUP = "lit_align"

#: hook -> the kind of thing it takes, where the built-in ones live, and what they derive from
ROOMS = {
    "register_objectives": ("objective", "lit_align.objectives", "Objective"),
    "register_formats": ("format", "lit_align.data.formats", "Format"),
}


@dataclass
class Plugin:
    """What became of one plugin; ``lit-align plugins`` prints these."""

    name: str
    version: str | None = None
    hooks: list[str] = field(default_factory=list)
    provides: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None

    @property
    def built_in(self) -> bool:
        """Whether it ships with lit_align, so that its failure is ours to fix."""
        return self.version is None


@dataclass(frozen=True)
class Plugins:
    """Everything that was found."""

    found: list[Plugin]
    registries: dict[str, Registry]

    @property
    def objectives(self) -> Registry:
        return self.registries["register_objectives"]

    @property
    def formats(self) -> Registry:
        return self.registries["register_formats"]


@functools.cache
def load_plugins() -> Plugins:
    """Load every plugin, once.

    ``LIT_ALIGN_PLUGINS=a,b`` loads only those installed packages (empty: none),
    ``LIT_ALIGN_BLOCK=a,b`` loads all but those, ``LIT_ALIGN_STRICT=1`` raises
    what a plugin raised instead of leaving the plugin out.
    """
    manager = pluggy.PluginManager("lit_align")
    manager.add_hookspecs(hookspecs)
    registries = {
        hook: Registry(kind, getattr(import_module(room), base)) for hook, (kind, room, base) in ROOMS.items()
    }
    found = []
    for plugin, load in _candidates():
        try:
            module = load()
            _register(manager, plugin, module)
            _collect(manager, plugin, module, registries)
        except Exception as error:  # a stranger's code: anything may go wrong, nothing may spread
            if plugin.built_in or os.environ.get("LIT_ALIGN_STRICT"):
                raise
            plugin.error = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"plugin {plugin.name} is left out: {plugin.error}", stacklevel=2)
        if plugin.hooks or not plugin.built_in:
            found.append(plugin)
    return Plugins(found, registries)


def _candidates() -> Iterator[tuple[Plugin, Callable[[], ModuleType]]]:
    """Built-in modules first, then installed packages in the order of their names."""
    for _, room, _ in ROOMS.values():
        for module in pkgutil.iter_modules(import_module(room).__path__, f"{room}."):
            yield Plugin(module.name), functools.partial(import_module, module.name)
    only, blocked = _listed("LIT_ALIGN_PLUGINS"), _listed("LIT_ALIGN_BLOCK") or set()
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.dist.name, point.name)):
        if point.dist.name not in blocked and (only is None or point.dist.name in only):
            yield Plugin(point.dist.name, point.dist.version), point.load


def _register(manager: pluggy.PluginManager, plugin: Plugin, module: ModuleType) -> None:
    """Register ``module``, refusing hooks that do not exist rather than ignoring them."""
    marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
    if unknown := set(marked) - ROOMS.keys():
        raise pluggy.PluginValidationError(module, f"there is no hook called {', '.join(sorted(unknown))}")
    manager.register(module, plugin.name)
    plugin.hooks = marked


def _collect(
    manager: pluggy.PluginManager, plugin: Plugin, module: ModuleType, registries: dict[str, Registry]
) -> None:
    """Call the hooks of one plugin alone, so that what it offers and what it breaks are its own."""
    others = manager.get_plugins() - {module}
    for hook in plugin.hooks:
        offered: list[type] = []
        manager.subset_hook_caller(hook, others)(register=offered.append)
        for cls in offered:
            registries[hook].add(cls, plugin.name)
        plugin.provides[registries[hook].kind] = [cls.__name__ for cls in offered]


def _listed(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {name.strip() for name in value.split(",") if name.strip()}
