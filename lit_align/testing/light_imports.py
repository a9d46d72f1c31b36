"""Whether hooks are light: they are imported and called whenever plugins are listed, also for ``lit-align --help``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, packages_distributions

from lit_align.installed_plugins import GROUP, normalized
from lit_align.testing.objective_checks import require

HEAVY = (
    "lightning",
    "transformers",
    "peft",
    "datasets",
    "pandas",
    "sklearn",
    "matplotlib",
    "fastapi",
    "IPython",
)
"""Packages that take long to import, and that lit_align imports only for the commands that need them."""

SCRIPT = """
import json, sys
from importlib import import_module
from lit_align.plugins import LATE_HOOKS, load_plugins

early_hooks = [*load_plugins().registries, "register_commands"]
imported, before = {}, set(sys.modules)
for name in sys.argv[1:]:
    module = import_module(name)
    for hook in early_hooks:
        if hasattr(module, hook):
            getattr(module, hook)(register=lambda *classes, **settings: None)
    if any(hasattr(module, hook) for hook in (*early_hooks, *LATE_HOOKS)):
        imported[name] = sorted({other.partition(".")[0] for other in set(sys.modules) - before})
        before = set(sys.modules)
print(json.dumps(imported))
"""
"""Imports modules, and calls their hooks as a list of plugins does; prints what those with hooks imported, as JSON."""


def require_light_package(module: str) -> None:
    """Fail if the package of a module has hooks that import what takes long, where its entry points say or at its top.

    Args:
        module: any in the package.
    """
    package = module.partition(".")[0]
    installed = map(normalized, packages_distributions().get(package, ()))
    names, modules = {*installed}, []
    for point in entry_points(group=GROUP):
        is_of_package = point.dist is not None and normalized(point.dist.name) in names
        if is_of_package or point.module.partition(".")[0] == package:
            modules.append(point.module)
    # the package comes last: what it imports counts for hooks in it, and not for those outside that do without it
    require_light_import(*dict.fromkeys([*modules, package]))


def require_light_import(*modules: str) -> None:
    """Fail if modules with hooks import what takes long, or cannot be imported; those without hooks pass.

    Args:
        modules: their names. What was typed in, and is in no module, passes too, and what is part of lit_align.
    """
    own = ("__main__", "builtins", "lit_align")
    names = [module for module in modules if module.partition(".")[0] not in own]
    if not names:
        return
    *printed, answer = _import_alone(names)
    imported: dict[str, list[str]] = json.loads(answer)
    require(
        not (printed and imported),
        f"{', '.join(imported)} prints {printed} when it is imported and its hooks are called, which is whenever "
        "plugins are listed",
    )
    for module, packages in imported.items():
        heavy = [name for name in HEAVY if name in packages]
        require(
            not heavy,
            f"{module} has hooks and imports {', '.join(heavy)}, which every lit-align command would wait for; import "
            "it in register_stages, register_datamodules or the function that needs it",
        )


def _import_alone(modules: Sequence[str]) -> list[str]:
    """The lines that a process prints that imports them."""
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules],
        env={**os.environ, "PYTHONPATH": path, "LIT_ALIGN_PLUGINS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    reason = (done.stderr.strip().splitlines() or ["nothing is printed"])[-1]
    require(
        done.returncode == 0,
        f"{', '.join(modules)} cannot be imported by itself, or its hooks not called: {reason}",
    )
    return done.stdout.strip().splitlines()
