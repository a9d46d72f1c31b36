"""Hooks that know nothing of lit_align's types: the mark is enough, and pluggy makes the same one."""

import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from lit_align import plugins
from lit_align.installed_plugins import InstalledPlugin
from lit_align.plugins import load_plugins

MARKS = {
    "the mark alone": "from lit_align import hookimpl\n",
    "pluggy's mark": 'import pluggy\n\nhookimpl = pluggy.HookimplMarker("lit_align")\n',
    "types for a checker alone": (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "from lit_align import hookimpl\n"
        "if TYPE_CHECKING:\n    from lit_align import Register\n"
    ),
}

BASES = {
    "register_objectives": "lit_align.objectives.dpo.DPO",
    "register_formats": "lit_align.data.formats.preferences.Preferences",
    "register_rewards": "lit_align.rewards.length.Length",
    "register_advantages": "lit_align.advantages.grpo.GRPO",
    "register_feedback": "lit_align.feedback.recorded.Recorded",
    "register_samplers": "lit_align.models.samplers.in_process.InProcess",
    "register_judges": "lit_align.judges.local_model.LocalModel",
    "register_tasks": "lit_align.evaluation.suite.safety.Safety",
    "register_embedders": "lit_align.orca.embedders.tabular.Tabular",
    "register_stages": "lit_align.stages.sft.SFT",
    "register_datamodules": "lit_align.data.datamodules.Demonstrations",
}
"""What the plugin's class of each hook derives from, to have all methods."""

CLASS_HOOK = """
@hookimpl
def {hook}(register{annotation}):
    from {module} import {name}

    register(type("Plain{name}", ({name},), {{}}))
"""

COMMAND_HOOK = """
@hookimpl
def register_commands(register):
    register("plain", print, "prints its arguments")
"""


@pytest.fixture(params=MARKS)
def plain(request, tmp_path, monkeypatch):
    """All plugins, and one whose module imports the mark and nothing else, as far as it is run."""
    name = f"lit_align_plain_{list(MARKS).index(request.param)}"
    annotation = ": Register" if "Register" in MARKS[request.param] else ""
    source = MARKS[request.param] + COMMAND_HOOK
    for hook, path in BASES.items():
        module, _, cls = path.rpartition(".")
        source += CLASS_HOOK.format(hook=hook, module=module, name=cls, annotation=annotation)
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    point = SimpleNamespace(load=lambda: import_module(name))
    monkeypatch.setattr(
        plugins, "installed_plugins", lambda: [InstalledPlugin("lit-align-plain", "1.0", point)]
    )
    load_plugins.cache_clear()
    yield load_plugins()
    monkeypatch.undo()
    load_plugins.cache_clear()


def test_every_hook_takes_a_function_without_types(plain):
    assert BASES.keys() | {"register_commands"} == {
        *plain.registries,
        *plugins.LATE_HOOKS,
        "register_commands",
    }
    (plugin,) = [plugin for plugin in plain.plugins if plugin.name == "lit-align-plain"]
    assert plugin.error is None
    assert set(plugin.hooks) == BASES.keys() | {"register_commands"}
    late = {cls.__name__ for cls in plain.load_stages()}
    for hook, path in BASES.items():
        name = f"Plain{path.rpartition('.')[2]}"
        registered = late if hook in plugins.LATE_HOOKS else plain.registries[hook]
        assert name in registered, hook
    assert plain.commands["plain"].function is print


def test_a_module_with_pluggy_s_mark_imports_nothing_of_lit_align(tmp_path):
    (tmp_path / "plain.py").write_text(MARKS["pluggy's mark"] + COMMAND_HOOK)
    code = "import sys, plain; print('lit_align' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
