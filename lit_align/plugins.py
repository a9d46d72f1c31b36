"""Find plugins, load them one by one, and remember what each one brought.

Built-in parts are plugins too: every module in a room below is loaded through the
same hooks as a third-party package, so a new file there is a new part. A plugin that
fails is left out and reported; it never stops a run that does not ask for it.
"""

from __future__ import annotations

import functools
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import pluggy

from lit_align import hookspecs
from lit_align.errors import PluginError
from lit_align.registry import Registry, closest

GROUP = "lit_align"

#: hook -> the kind of thing it takes, where the built-in ones live, and what they derive from
ROOMS = {
    "register_objectives": ("objective", "lit_align.objectives", "Objective"),
    "register_formats": ("format", "lit_align.data.formats", "Format"),
    "register_rewards": ("reward", "lit_align.rewards", "Reward"),
    "register_advantages": ("advantage", "lit_align.advantages", "Advantage"),
    "register_feedback": ("feedback", "lit_align.feedback", "Feedback"),
    "register_embedders": ("embedder", "lit_align.orca.embedders", "Embedder"),
}


@dataclass
class Plugin:
    """What became of one plugin; ``lit-align plugins`` prints these.

    Args:
        name: of the installed package, or of the built-in module.
        version: of the package; None for what ships with lit_align.
        hooks: those it implements.
        provides: names of the classes it brought, by kind.
        error: why it was left out, or None.
    """

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
    """Everything that was found.

    Args:
        found: one record for each plugin, built-in ones first.
        registries: the classes that each hook took.
    """

    found: list[Plugin]
    registries: dict[str, Registry]

    @property
    def objectives(self) -> Registry:
        """Losses by name."""
        return self.registries["register_objectives"]

    @property
    def formats(self) -> Registry:
        """Layouts of rows by name."""
        return self.registries["register_formats"]

    @property
    def rewards(self) -> Registry:
        """Scores for responses by name."""
        return self.registries["register_rewards"]

    @property
    def feedback(self) -> Registry:
        """Who labels responses, by name."""
        return self.registries["register_feedback"]


@functools.cache
def load_plugins() -> Plugins:
    """Load every plugin, once.

    ``LIT_ALIGN_PLUGINS=a,b`` loads only those installed packages (empty: none), ``LIT_ALIGN_BLOCK=a,b`` loads all but
    those, ``LIT_ALIGN_STRICT=1`` raises what a plugin raised instead of leaving the plugin out, and
    ``LIT_ALIGN_TRACE=1`` prints each call of a hook to stderr.

    Example:
        >>> load_plugins().objectives["DPO"].__name__
        'DPO'
    """
    manager = pluggy.PluginManager("lit_align")
    manager.add_hookspecs(hookspecs)
    if os.environ.get("LIT_ALIGN_TRACE"):
        manager.add_hookcall_monitoring(_before, _after)
    registries = {
        hook: Registry(kind, getattr(import_module(room), base))
        for hook, (kind, room, base) in ROOMS.items()
    }
    found = []
    for plugin, load in _candidates():
        try:
            module = load()
            _register(manager, plugin, module)
            _collect(manager, plugin, module, registries)
        except (
            Exception,
            SystemExit,
        ) as error:  # a stranger's code: anything may go wrong, nothing may spread
            if plugin.built_in or os.environ.get("LIT_ALIGN_STRICT"):
                raise
            plugin.error = " ".join(f"{type(error).__name__}: {error}".split())[:300]
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
    installed = sorted((_package(point), point) for point in entry_points(group=GROUP))
    for variable, names in {"LIT_ALIGN_PLUGINS": only or set(), "LIT_ALIGN_BLOCK": blocked}.items():
        there = {_normal(name) for (name, _), _ in installed}
        for name in sorted(names - there):
            meant = closest(name, there)
            hint = (
                f"did you mean {meant}?"
                if meant
                else f"there are {', '.join(sorted(there)) or 'none'}"
            )
            warnings.warn(
                f"{variable} names {name}, and no such plugin is installed; {hint}", stacklevel=4
            )
    for (name, version), point in installed:
        if _normal(name) not in blocked and (only is None or _normal(name) in only):
            yield Plugin(name, version), point.load


def _package(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package an entry point belongs to, as far as a damaged installation still says."""
    package = point.dist
    if package is None or not (package.read_text("METADATA") or package.read_text("PKG-INFO")):
        return point.name, "unknown"
    return package.name, package.version


def _register(manager: pluggy.PluginManager, plugin: Plugin, module: ModuleType) -> None:
    """Register ``module``, refusing what pluggy would ignore: unknown hooks, and functions that lack the mark."""
    marked = [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]
    if unknown := set(marked) - ROOMS.keys():
        raise PluginError(
            f"there is no hook called {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}"
        )
    if unmarked := {hook for hook in ROOMS if hasattr(module, hook)} - set(marked):
        raise PluginError(
            f"{', '.join(sorted(unmarked))} is not marked as a hook; put @hookimpl above it"
        )
    manager.register(
        module, f"{plugin.name}:{module.__name__}"
    )  # a package may have several entry points
    plugin.hooks = marked


def _collect(
    manager: pluggy.PluginManager,
    plugin: Plugin,
    module: ModuleType,
    registries: dict[str, Registry],
) -> None:
    """Call the hooks of one plugin alone, so that what it breaks is its own; it is taken whole or not at all."""
    others = manager.get_plugins() - {module}
    offered: dict[str, list[type]] = {}
    for hook in plugin.hooks:
        classes = offered[hook] = []
        manager.subset_hook_caller(hook, others)(register=classes.append)
        for cls in classes:
            registries[hook].check(cls)
    for hook, classes in offered.items():
        for cls in classes:
            registries[hook].add(cls, plugin.name)
        plugin.provides[registries[hook].kind] = [cls.__name__ for cls in classes]


def _listed(variable: str) -> set[str] | None:
    value = os.environ.get(variable)
    return None if value is None else {_normal(name) for name in value.split(",") if name.strip()}


def _normal(name: str) -> str:
    """A package's name as the index compares it.

    Example:
        >>> _normal(" Lit_Align.zoo ")
        'lit-align-zoo'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _before(
    hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, object]
) -> None:
    _trace(hook, implementations, f"called with {', '.join(arguments)}")


def _after(
    outcome: pluggy.Result[object],
    hook: str,
    implementations: Sequence[pluggy.HookImpl],
    arguments: Mapping[str, object],
) -> None:
    _trace(
        hook, implementations, f"raised {outcome.exception!r}" if outcome.exception else "returned"
    )


def _trace(hook: str, implementations: Sequence[pluggy.HookImpl], what: str) -> None:
    print(
        f"lit-align: {hook} of {', '.join(i.plugin_name for i in implementations)} {what}",
        file=sys.stderr,
    )
