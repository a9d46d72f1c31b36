"""Broken plugins change nothing for a run that does not ask for them, and each is listed with its error."""

import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import types
from importlib import import_module
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningArgumentParser

from lit_align import hookimpl, hookspecs, plugins
from lit_align.__main__ import HELP, main
from lit_align.data.formats import Format
from lit_align.errors import AmbiguousName, PluginError, UnknownName
from lit_align.installed_plugins import InstalledPlugin
from lit_align.objectives import Objective, PairwiseObjective
from lit_align.objectives.dpo import DPO
from lit_align.objectives.ipo import IPO
from lit_align.orca import plugin as orca
from lit_align.plugins import PLUGIN_KINDS, load_plugins
from lit_align.registry import Registry
from tests.stages.runs import arguments, write_pairs

ROOT = Path(__file__).parent.parent
PREFACE = "from lit_align import hookimpl\nfrom lit_align.objectives import PairwiseObjective\n"
LOSS = "class {}(PairwiseObjective):\n"
LOSS += "    def __call__(self, chosen, rejected): return rejected.policy - chosen.policy\n"
OFFER = "@hookimpl\ndef register_objectives(register): register({})\n"

# name -> entry point, source, and what is said of it (None: nothing is wrong)
PACKAGES = {
    "badsig": (
        "badsig",
        "@hookimpl\ndef register_objectives(registry): pass\n",
        "hookimpl definition",
    ),
    "dup": ("dup", LOSS.format("Margin") + OFFER.format("Margin"), None),
    "exits": ("exits", "raise SystemExit(3)\n", "SystemExit: 3"),
    "good": ("good", LOSS.format("Margin") + OFFER.format("Margin"), None),
    "goodclone": ("good", LOSS.format("Other") + OFFER.format("Other"), None),
    "half": (
        "half",
        OFFER.format("PairwiseObjective"),
        "PluginError: PairwiseObjective does not implement __call__",
    ),
    "importerr": (
        "importerr",
        "import does_not_exist\n",
        "ModuleNotFoundError: No module named 'does_not_exist'",
    ),
    "raises": (
        "raises",
        LOSS.format("Fine") + OFFER.format("Fine").strip() + "; raise RuntimeError('boom')\n",
        "RuntimeError: boom",
    ),
    "second": (
        "second",
        "from lit_align.objectives.dpo import DPO\n" + OFFER.format("DPO"),
        "DPO is registered already, by lit_align.objectives.dpo; register it once",
    ),
    "typo": (
        "typo",
        "@hookimpl\ndef register_objective(register): pass\n",
        "no hook called register_objective;",
    ),
    "unmarked": (
        "unmarked",
        "def register_objectives(register): pass\n",
        "register_objectives is not marked as a hook",
    ),
    "wrongtype": (
        "wrongtype",
        OFFER.format("'Margin'"),
        "PluginError: 'Margin' is not a subclass of Objective",
    ),
}

SCRIPT = """
import contextlib, io, json, os, sys, warnings
from lit_align.plugins import load_plugins

def load(**variables):
    for name in ("PLUGINS", "BLOCK", "STRICT", "TRACE"):
        os.environ.pop(f"LIT_ALIGN_{name}", None)
    os.environ.update({f"LIT_ALIGN_{name}": value for name, value in variables.items()})
    load_plugins.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = load_plugins()
    return found, [str(one.message) for one in caught]

def installed(found):
    return [plugin.name for plugin in found.plugins if not plugin.built_in]

answers = {}
found, answers["warnings"] = load()
answers["found"] = [vars(plugin) for plugin in found.plugins]
answers["objectives"] = list(found.objectives)
try:
    found.objectives["Margin"]
except Exception as error:
    answers["clash"] = str(error)
answers["only"] = installed(load(PLUGINS="Lit_Align.good,lit-align-typo")[0])
answers["misspelt"] = load(PLUGINS="lit-align-godo,nothing-like-it")[1]
answers["none"] = installed(load(PLUGINS="")[0])
answers["blocked"] = installed(load(BLOCK="lit-align-good")[0])
try:
    load(PLUGINS="lit-align-raises", STRICT="1")
except Exception as error:
    answers["strict"] = repr(error)
with contextlib.redirect_stderr(io.StringIO()) as trace:
    load(PLUGINS="lit-align-good,lit-align-raises", TRACE="1")
answers["trace"] = trace.getvalue()
load()

from lit_align.cli.main import main

with contextlib.redirect_stderr(io.StringIO()) as error:
    try:
        main([*json.loads(sys.argv[1]), "--model.objective=Margin"])
    except SystemExit as stopped:
        answers["asked"] = (stopped.code, error.getvalue())
with contextlib.redirect_stdout(io.StringIO()):
    main(json.loads(sys.argv[1]))
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tiny, tmp_path_factory) -> dict:
    """What one process sees that has all of them installed, and trains DPO."""
    site = tmp_path_factory.mktemp("site")
    for name, (point, source, _) in PACKAGES.items():
        (site / f"p_{name}.py").write_text(PREFACE + source)
        package = site / f"lit_align_{name}-1.0.dist-info"
        package.mkdir()
        (package / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: lit-align-{name}\nVersion: 1.0\n"
        )
        (package / "entry_points.txt").write_text(f"[lit_align]\n{point} = p_{name}\n")
    damaged = site / "lit_align_damaged-1.0.dist-info"
    damaged.mkdir()
    (damaged / "entry_points.txt").write_text("[lit_align]\ndamaged = p_gone\n")
    train = arguments(
        tiny, write_pairs(site / "pairs.jsonl"), site / "runs", "--trainer.max_steps=1"
    )
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(train)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return {**json.loads(run.stdout.splitlines()[-1]), "runs": site / "runs"}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_plugin_is_listed_with_what_it_brings_or_its_error(answers, name):
    wrong = PACKAGES[name][2]
    (plugin,) = [one for one in answers["found"] if one["name"] == f"lit-align-{name}"]
    warned = [
        one
        for one in answers["warnings"]
        if one.startswith(f"plugin lit-align-{name} is left out: ")
    ]
    assert plugin["version"] == "1.0"
    if wrong is None:
        assert plugin["error"] is None
        assert plugin["hooks"] == ["register_objectives"]
        assert plugin["provides"] == {"objective": ["Other" if name == "goodclone" else "Margin"]}
        assert not warned
    else:
        assert wrong in plugin["error"] or wrong in " ".join(warned)
        assert plugin["provides"] == {}
        assert len(warned) == 1


def test_a_damaged_installation_is_listed_by_its_entry_point(answers):
    (plugin,) = [one for one in answers["found"] if one["name"] == "damaged"]
    assert plugin["version"] == "unknown"
    assert "p_gone" in plugin["error"]


def test_built_in_parts_and_sound_plugins_are_unharmed(answers):
    assert answers["objectives"] == sorted([*load_plugins().objectives, "Other", "Margin"])
    assert not [one for one in answers["found"] if one["version"] is None and one["error"]]
    (run,) = answers["runs"].iterdir()
    assert (
        json.loads((run / "adapter" / "provenance.json").read_text())["objective"]
        == "DPO(beta=0.1)"
    )


def test_a_clash_names_both_packages_and_both_paths(answers):
    wanted = (
        "Margin is provided by lit-align-dup and lit-align-good; use p_dup.Margin or p_good.Margin"
    )
    assert answers["clash"] == wanted
    assert answers["asked"] == [2, f"lit-align: {wanted}\n"]


def test_plugins_are_chosen_by_the_environment(answers):
    assert answers["only"] == ["lit-align-good", "lit-align-typo"]
    assert answers["none"] == []
    first, second = answers["misspelt"]
    meant = "names lit-align-godo, and no such plugin is installed; did you mean lit-align-good?"
    assert first == f"LIT_ALIGN_PLUGINS {meant}"
    assert second.startswith(
        "LIT_ALIGN_PLUGINS names nothing-like-it, and no such plugin is installed; there are "
    )
    assert "lit-align-good" not in answers["blocked"]
    assert len(answers["blocked"]) == len(PACKAGES)


def test_strict_raises_what_the_plugin_raised(answers):
    assert answers["strict"] == "RuntimeError('boom')"


def test_trace_shows_each_call(answers):
    lines = answers["trace"].splitlines()
    assert "lit-align: register_objectives of lit-align-good:p_good called with register" in lines
    assert "lit-align: register_objectives of lit-align-good:p_good returned" in lines
    assert (
        "lit-align: register_objectives of lit-align-raises:p_raises raised RuntimeError('boom')"
        in lines
    )


def test_a_built_in_that_fails_always_raises(monkeypatch, tmp_path):
    """Ours to fix, so never passed over; the room gets one more module, which does not import."""
    (tmp_path / "broken.py").write_text("import does_not_exist\n")
    room = import_module("lit_align.objectives")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    load_plugins.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="does_not_exist"):
        load_plugins()
    monkeypatch.undo()
    load_plugins.cache_clear()


# ---------------------------------------------------------------------- rooms, names and hooks


def test_a_registry_answers_by_name():
    registry = Registry("objective", Objective)
    registry.add(DPO, "one")
    assert registry["DPO"] is DPO
    assert dict(registry) == {"DPO": DPO}
    with pytest.raises(UnknownName, match=r"^no objective is called 'dpo'; did you mean DPO\?$"):
        registry["dpo"]
    with pytest.raises(UnknownName, match="there are DPO"):
        registry["xyz"]
    with pytest.raises(PluginError, match="registered already, by one"):
        registry.add(DPO, "two")


def test_an_ambiguous_name_is_known_but_not_resolved():
    registry = Registry("objective", Objective)
    registry.add(DPO, "one")
    other = type("DPO", (IPO,), {})
    registry.add(other, "two")
    assert "DPO" in registry
    assert registry.classes() == [DPO, other]
    with pytest.raises(AmbiguousName, match="DPO is provided by one and two"):
        registry["DPO"]


KINDS = {**PLUGIN_KINDS, **orca.PLUGIN_KINDS}


@pytest.mark.parametrize("hook", KINDS)
def test_every_public_class_of_a_kind_is_registered(hook):
    parent = getattr(import_module(KINDS[hook].package), KINDS[hook].base)
    packages = [*(kind.package for kind in KINDS.values()), "lit_align.labelling"]
    modules = [
        import_module(info.name)
        for package in packages
        for info in pkgutil.iter_modules(import_module(package).__path__, f"{package}.")
    ]
    defined = {
        cls
        for module in modules
        for name, cls in vars(module).items()
        if inspect.isclass(cls)
        and issubclass(cls, parent)
        and cls is not parent
        and not inspect.isabstract(cls)
        and name[0] != "_"
    }
    assert defined == set(load_plugins().registries[hook].classes())


@pytest.mark.parametrize(
    ("base", "cls"),
    [(base, cls) for hook, base in (("objectives", Objective), ("formats", Format))
     for cls in getattr(load_plugins(), hook).classes()],
    ids=lambda one: one.__name__,
)  # fmt: skip
def test_every_name_resolves_to_its_class_on_the_command_line(base, cls):
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=base)
    parts = (
        ['--it.objectives=[{"class_path": "DPO"}]', "--it.weights=[1.0]"]
        if cls.__name__ == "Mix"
        else []
    )
    assert type(parser.instantiate(parser.parse_args([f"--it={cls.__name__}", *parts])).it) is cls


def test_a_stage_offers_only_its_family():
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--it", type=PairwiseObjective)
    assert parser.parse_args(["--it=DPO"])
    with pytest.raises(Exception, match="CrossEntropy"):
        parser.parse_args(["--it=CrossEntropy"])


def test_every_hook_is_documented_with_its_arguments_and_used_by_a_plugin():
    hooks = {}
    for module in (hookspecs, orca.hookspecs):
        for name, function in vars(module).items():
            if name.startswith("register_"):
                hooks[name] = function
    assert hooks.keys() == {*KINDS, "register_commands", *plugins.LATE_HOOKS}
    text = (ROOT / "plugins" / "README.md").read_text()
    packages = [folder for folder in (ROOT / "plugins").glob("lit-align-*") if folder.is_dir()]
    for name, hook in hooks.items():
        written = f"{name}({', '.join(inspect.signature(hook).parameters)})"
        assert f"`{written}`" in text
        users = [folder.name for folder in packages if _implements(folder, name)]
        assert users, f"no package in plugins/ uses {name}"
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{written}`")]
        assert re.findall(r"\((lit-align-[a-z]+)\) \|$", row)[0] in users
    for folder in packages:
        assert list(folder.glob("tests/test_*.py")), folder


def _implements(folder, hook):
    """Whether a package has a function for a hook."""
    files = [*folder.glob("*.py"), *folder.glob("lit_align_*/*.py")]
    return any(re.search(rf"def {hook}\(", path.read_text()) for path in files)


# ---------------------------------------------------------------------- commands, stages and extensions


@pytest.fixture
def load_module(monkeypatch):
    """Loads all plugins, and the given function marked as a hook in an installed plugin."""

    def load(**hooks):
        module = types.ModuleType("p_extra")
        for name, function in hooks.items():
            setattr(module, name, hookimpl(function))
        point = types.SimpleNamespace(load=lambda: module)
        installed = [InstalledPlugin("lit-align-extra", "1.0", point)]
        monkeypatch.setattr(plugins, "installed_plugins", lambda: installed)
        load_plugins.cache_clear()
        return load_plugins()

    yield load
    monkeypatch.undo()
    load_plugins.cache_clear()


def test_a_plugin_adds_a_command(load_module, capsys):
    def register_commands(register):
        register("greet", lambda arguments: print("hello", *arguments), "prints a greeting")
        register("evaluate mood", lambda arguments: print("mood", *arguments), "a second one")

    load_module(register_commands=register_commands)
    main(["greet", "you"])
    main(["evaluate", "mood", "--today"])
    main(["plugins", "commands", "--json"])
    out = capsys.readouterr().out
    assert out.startswith("hello you\nmood --today\n")
    assert {"name": "greet", "from": "lit-align-extra", "what": "prints a greeting"} in json.loads(
        out[out.index("[") :]
    )
    with pytest.raises(SystemExit, match="2"):
        main(["gret"])
    assert "there is no command 'gret'; did you mean greet?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (("fit", print, "x"), "there is a command 'fit' already; choose another name"),
        (("label", print, "x"), "there is a command 'label' already; choose another name"),
        (("two words", print, "x"), "give one word, or 'evaluate' and one more"),
        (("greet", "print", "x"), "the command 'greet' is not a function"),
        (("greet", print, ""), "the command 'greet' has no help; give one line"),
    ],
)
def test_a_command_that_cannot_be_called_is_reported(load_module, command, error):
    with pytest.warns(UserWarning, match="plugin lit-align-extra is left out: PluginError: "):
        found = load_module(register_commands=lambda register: register(*command))
    (plugin,) = [plugin for plugin in found.plugins if plugin.name == "lit-align-extra"]
    assert error in plugin.error


def test_stages_are_registered_when_settings_are_parsed(load_module):
    calls = []

    class Extra:
        pass

    def register_stages(register):
        calls.append(1)
        register(Extra)

    found = load_module(register_stages=register_stages)
    assert not calls
    classes = found.load_stages()
    assert Extra in classes
    names = {cls.__name__ for cls in classes}
    assert {"Preference", "RL", "Online", "Report", "Comparisons"} <= names
    assert {"CrossModal", "CrossModalData", "Images", "OTDD"} <= names
    assert len(classes) == len(set(classes))


def test_a_data_module_that_is_none_is_reported(load_module):
    found = load_module(register_datamodules=lambda register: register(Registry))
    with pytest.warns(UserWarning, match="Registry is not a LightningDataModule; register_stages"):
        names = {cls.__name__ for cls in found.load_stages()}
    assert "Comparisons" in names
    assert "Registry" not in names


def test_stages_that_fail_are_left_out_and_reported(load_module):
    def register_stages(register):
        raise RuntimeError("boom")

    found = load_module(register_stages=register_stages)
    with pytest.warns(UserWarning, match="plugin lit-align-extra is left out: RuntimeError: boom"):
        names = {cls.__name__ for cls in found.load_stages()}
    assert {"Preference", "CrossModal"} <= names
    (plugin,) = [plugin for plugin in found.plugins if plugin.name == "lit-align-extra"]
    assert plugin.error == "RuntimeError: boom"


def test_an_extension_that_fails_is_left_out_and_reported(monkeypatch):
    monkeypatch.setattr(plugins, "EXTENSIONS", ("lit_align.nowhere", *plugins.EXTENSIONS[1:]))
    load_plugins.cache_clear()
    with pytest.warns(UserWarning, match=r"plugin lit_align.nowhere is left out: ModuleNotFound"):
        found = load_plugins()
    assert "evaluate cross-modal" not in found.commands
    assert "register_embedders" not in found.registries
    assert "label" in found.commands
    monkeypatch.undo()
    load_plugins.cache_clear()


def test_every_command_is_in_the_first_help():
    for name in [*plugins.CORE_COMMANDS, *load_plugins().commands]:
        if name != "evaluate":
            assert f"lit-align {name} " in HELP
