"""Find plugins, load them one by one, and record what each of them provides.

Built-in parts are plugins too: every module in a package of ``PLUGIN_KINDS`` is loaded through the same hooks as a
third-party package, so a new file there is a new part. A plugin that fails is left out and reported; it never stops a
run that does not use it.
"""

from __future__ import annotations

import functools
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import pluggy

from lit_align import hookspecs
from lit_align.errors import PluginError
from lit_align.installed_plugins import installed_plugins
from lit_align.registry import Registry

# fmt: off
CORE_COMMANDS = (
    "init", "fit", "validate", "test", "predict", "inspect", "judge", "evaluate", "export", "chat", "report", "runs",
    "plugins", "env", "completion",
)
# fmt: on

CORE_STAGES = "lit_align.core_stages"
"""The module that registers the stages, data modules and callbacks of the core."""

EXTENSIONS = ("lit_align.orca.plugin", "lit_align.labelling.plugin")
"""Plugins that ship with lit_align. Nothing in the core imports them; one that fails is left out like any other."""

EXTENSION_COMMANDS = ("label", "campaign")
"""First words of the commands that ``EXTENSIONS`` add, for suggestions without importing them."""


@dataclass(frozen=True)
class PluginKind:
    """One kind of class that plugins provide.

    Args:
        name: of one such class, in a word.
        package: where the built-in ones are.
        base: name of their base class in ``package``.
    """

    name: str
    package: str
    base: str


PLUGIN_KINDS = {
    "register_objectives": PluginKind("objective", "lit_align.objectives", "Objective"),
    "register_formats": PluginKind("format", "lit_align.data.formats", "Format"),
    "register_rewards": PluginKind("reward", "lit_align.rewards", "Reward"),
    "register_advantages": PluginKind("advantage", "lit_align.advantages", "Advantage"),
    "register_feedback": PluginKind("feedback", "lit_align.feedback", "Feedback"),
    "register_samplers": PluginKind("sampler", "lit_align.models.samplers", "Sampler"),
    "register_judges": PluginKind("judge", "lit_align.judges", "JudgeModel"),
    "register_tasks": PluginKind("task", "lit_align.evaluation.suite", "Task"),
}
"""Kinds of the core, by hook. An extension adds its own: ``PLUGIN_KINDS`` and the ``hookspecs`` module of its hooks."""


LATE_HOOKS = ("register_stages", "register_datamodules")
"""Hooks that are called when settings are parsed, because their classes need Lightning."""


@dataclass
class Plugin:
    """The record of one plugin; ``lit-align plugins`` prints these.

    Args:
        name: of the installed package, or of the built-in module.
        version: of the package; None for what ships with lit_align.
        hooks: those it implements.
        provides: names of what it registered, by kind.
        error: why it was left out, or None.
    """

    name: str
    version: str | None = None
    hooks: list[str] = field(default_factory=list)
    provides: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None

    @property
    def built_in(self) -> bool:
        """Whether it ships with lit_align."""
        return self.version is None

    def report(self, error: BaseException) -> None:
        """Record and warn that the plugin is left out; raise instead if it is part of the core, or in strict mode."""
        is_core = self.built_in and self.name not in EXTENSIONS
        if is_core or os.environ.get("LIT_ALIGN_STRICT"):
            raise error
        self.error = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        warnings.warn(f"plugin {self.name} is left out: {self.error}", stacklevel=3)


@dataclass(frozen=True)
class Command:
    """A command that a plugin adds to ``lit-align``.

    Args:
        name: one word, or ``evaluate`` and one more.
        function: called with the arguments after the name.
        help: one line.
        plugin: which registered it.
    """

    name: str
    function: Callable[[list[str]], object]
    help: str
    plugin: str


class LateHook(NamedTuple):
    """A hook of one plugin by its name, and what calls it, when settings are parsed."""

    plugin: Plugin
    name: str
    call: Callable[..., object]


@dataclass(frozen=True)
class Plugins:
    """All plugins and what they provide.

    Args:
        plugins: one record for each plugin, built-in ones first.
        registries: the classes that each hook registered.
        commands: those that plugins add, by name.
        late_hooks: the ``LATE_HOOKS`` of each plugin, not called yet.
    """

    plugins: list[Plugin]
    registries: dict[str, Registry]
    commands: dict[str, Command]
    late_hooks: list[LateHook]

    @property
    def objectives(self) -> Registry:
        """Losses by name."""
        return self.registries["register_objectives"]

    @property
    def formats(self) -> Registry:
        """Formats of data rows by name."""
        return self.registries["register_formats"]

    @property
    def rewards(self) -> Registry:
        """Rewards by name."""
        return self.registries["register_rewards"]

    @property
    def feedback(self) -> Registry:
        """Sources of labels by name."""
        return self.registries["register_feedback"]

    def load_stages(self) -> list[type]:
        """Every class that ``LATE_HOOKS`` provide: stages, data modules, callbacks and others."""
        return list(_stages_of(self))


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
    loader = _Loader()
    loader.load_core()
    for name in EXTENSIONS:
        loader.load(Plugin(name), functools.partial(import_module, name))
    loader.load_packages(hook for hook in loader.kinds if hook not in PLUGIN_KINDS)
    for package in installed_plugins():
        loader.load(Plugin(package.name, package.version), package.entry_point.load)
    return Plugins(loader.plugins, loader.registries, loader.commands, loader.late_hooks())


class _Loader:
    """Loads plugins in order and collects what they provide."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager("lit_align")
        self.kinds: dict[str, PluginKind] = {}
        self.plugins: list[Plugin] = []
        self.registries: dict[str, Registry] = {}
        self.commands: dict[str, Command] = {}
        self.late_plugins: list[tuple[Plugin, ModuleType]] = []
        if os.environ.get("LIT_ALIGN_TRACE"):
            self.manager.add_hookcall_monitoring(_trace_before, _trace_after)

    @property
    def hooks(self) -> list[str]:
        """Names of all hooks."""
        return [*self.kinds, "register_commands", *LATE_HOOKS]

    def load_core(self) -> None:
        """Load the built-in modules of every kind of the core, and its stages."""
        self.add_kinds(hookspecs, PLUGIN_KINDS)
        self.load_packages(PLUGIN_KINDS)
        self.load(Plugin(CORE_STAGES), functools.partial(import_module, CORE_STAGES))

    def add_kinds(self, module: ModuleType, kinds: Mapping[str, PluginKind]) -> None:
        """Declare the hooks in ``module``, and the kinds of class that they register."""
        self.manager.add_hookspecs(module)
        for hook, kind in kinds.items():
            self.kinds[hook] = kind
            base = getattr(import_module(kind.package), kind.base)
            self.registries[hook] = Registry(kind.name, base)

    def load_packages(self, hooks: Iterator[str] | Mapping[str, PluginKind]) -> None:
        """Load the built-in modules of the kinds that ``hooks`` register."""
        for hook in hooks:
            package = self.kinds[hook].package
            for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
                self.load(Plugin(module.name), functools.partial(import_module, module.name))

    def load(self, plugin: Plugin, import_plugin: Callable[[], ModuleType]) -> None:
        """Import one plugin and collect what it provides; report it if that fails."""
        try:
            module = import_plugin()
            if plugin.name in EXTENSIONS and hasattr(module, "PLUGIN_KINDS"):
                self.add_kinds(module.hookspecs, module.PLUGIN_KINDS)
            self._register(plugin, module)
            self._collect(plugin, module)
        except (Exception, SystemExit) as error:  # third-party code may raise anything
            plugin.report(error)
        if plugin.hooks or plugin.error or not plugin.built_in:
            self.plugins.append(plugin)

    def late_hooks(self) -> list[LateHook]:
        """The ``LATE_HOOKS`` of each plugin alone, not called yet; for use when all plugins are loaded."""
        hooks = []
        for plugin, module in self.late_plugins:
            others = self.manager.get_plugins() - {module}
            for name in LATE_HOOKS:
                if name in plugin.hooks:
                    caller = self.manager.subset_hook_caller(name, others)
                    hooks.append(LateHook(plugin, name, caller))
        return hooks

    def _register(self, plugin: Plugin, module: ModuleType) -> None:
        """Register ``module``; refuse what pluggy would ignore: unknown hooks, and functions without the mark."""
        marked = []
        for name in dir(module):
            if self.manager.parse_hookimpl_opts(module, name) is not None:
                marked.append(name)
        if unknown := sorted(set(marked) - set(self.hooks)):
            raise PluginError(
                f"there is no hook called {', '.join(unknown)}; there are {', '.join(self.hooks)}"
            )
        unmarked = sorted(
            hook for hook in self.hooks if hasattr(module, hook) and hook not in marked
        )
        if unmarked:
            raise PluginError(
                f"{', '.join(unmarked)} is not marked as a hook; put @hookimpl above it"
            )
        # the name of the module too: a package may have several entry points
        self.manager.register(module, f"{plugin.name}:{module.__name__}")
        plugin.hooks = marked

    def _collect(self, plugin: Plugin, module: ModuleType) -> None:
        """Call the hooks of one plugin alone; it is accepted as a whole or not at all."""
        others = self.manager.get_plugins() - {module}
        classes_by_hook: dict[str, list[type]] = {}
        commands: list[Command] = []

        def add_command(name: str, function: Callable[[list[str]], object], help: str) -> None:
            command = Command(name, function, help, plugin.name)
            require_command(command, [*self.commands, *(other.name for other in commands)])
            commands.append(command)

        for hook in plugin.hooks:
            if hook in LATE_HOOKS:
                continue
            caller = self.manager.subset_hook_caller(hook, others)
            if hook == "register_commands":
                caller(register=add_command)
            else:
                classes = classes_by_hook[hook] = []
                caller(register=classes.append)
                for cls in classes:
                    self.registries[hook].check(cls)
        for hook, classes in classes_by_hook.items():
            for cls in classes:
                self.registries[hook].add(cls, plugin.name)
            plugin.provides[self.registries[hook].kind] = [cls.__name__ for cls in classes]
        if set(LATE_HOOKS) & set(plugin.hooks):
            self.late_plugins.append((plugin, module))
        if commands:
            self.commands.update((command.name, command) for command in commands)
            plugin.provides["command"] = [command.name for command in commands]


def require_command(command: Command, registered: list[str]) -> None:
    """Refuse a command that could not be called or listed.

    Args:
        command: to register.
        registered: names of those that are registered already.

    Raises:
        PluginError: with the reason.
    """
    words = command.name.split() if isinstance(command.name, str) else []
    is_evaluation = len(words) == 2 and words[0] == "evaluate"
    if len(words) != 1 and not is_evaluation:
        raise PluginError(
            f"a command is called {command.name!r}; give one word, or 'evaluate' and one more"
        )
    if command.name in CORE_COMMANDS or command.name in registered:
        raise PluginError(f"there is a command {command.name!r} already; choose another name")
    if not callable(command.function):
        raise PluginError(
            f"the command {command.name!r} is not a function; register a function of the arguments"
        )
    if not isinstance(command.help, str) or not command.help or "\n" in command.help:
        raise PluginError(f"the command {command.name!r} has no help; give one line")


def _stages_of(plugins: Plugins) -> Iterator[type]:
    """Call each late hook alone; a plugin that fails is reported and the hook's classes are left out."""
    for plugin, name, call in plugins.late_hooks:
        classes: list[type] = []
        try:
            call(register=classes.append)
            for cls in classes:
                _check_late_class(cls, name)
        except (Exception, SystemExit) as error:  # third-party code may raise anything
            if plugin.error is None:
                plugin.report(error)
            continue
        yield from classes


def _check_late_class(cls: object, hook: str) -> None:
    """Refuse what ``hook`` does not register.

    Raises:
        PluginError: unless it is a class, and a data module where those are registered.
    """
    if not isinstance(cls, type):
        raise PluginError(f"{cls!r} is not a class")
    if hook == "register_datamodules":
        from lightning.pytorch import LightningDataModule

        if not issubclass(cls, LightningDataModule):
            raise PluginError(
                f"{cls.__name__} is not a LightningDataModule; register_stages takes other classes"
            )


def _trace_before(
    hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, object]
) -> None:
    _trace(hook, implementations, f"called with {', '.join(arguments)}")


def _trace_after(
    outcome: pluggy.Result[object],
    hook: str,
    implementations: Sequence[pluggy.HookImpl],
    arguments: Mapping[str, object],
) -> None:
    error = outcome.exception
    _trace(hook, implementations, f"raised {error!r}" if error else "returned")


def _trace(hook: str, implementations: Sequence[pluggy.HookImpl], event: str) -> None:
    names = ", ".join(implementation.plugin_name for implementation in implementations)
    print(f"lit-align: {hook} of {names} {event}", file=sys.stderr)
