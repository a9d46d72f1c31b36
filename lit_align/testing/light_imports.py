"""Whether the module of a hook is light: it is imported whenever plugins are listed, also for ``lit-align --help``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

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
from lit_align.plugins import load_plugins

load_plugins()
before = set(sys.modules)
module = import_module(sys.argv[1])
has_hooks = any(name.startswith("register_") for name in vars(module))
print(json.dumps([has_hooks, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def require_light_import(module: str) -> None:
    """Fail if a module with hooks imports what takes long, or cannot be imported; one without hooks passes.

    Args:
        module: its name. What was typed in, and is in no module, passes too, and what is part of lit_align.
    """
    if module.partition(".")[0] in ("__main__", "builtins", "lit_align"):
        return
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module],
        env={**os.environ, "PYTHONPATH": path, "LIT_ALIGN_PLUGINS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    reason = (done.stderr.strip().splitlines() or ["nothing is printed"])[-1]
    require(done.returncode == 0, f"{module} cannot be imported by itself: {reason}")
    *printed, answer = done.stdout.strip().splitlines()
    require(
        not printed,
        f"{module} prints {printed} when it is imported, which is whenever plugins are listed",
    )
    has_hooks, imported = json.loads(answer)
    heavy = [name for name in HEAVY if name in imported]
    require(
        not (has_hooks and heavy),
        f"{module} has hooks and imports {', '.join(heavy)}, which every lit-align command would wait for; import it "
        "in the hook or the function that needs it",
    )
