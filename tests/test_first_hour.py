"""The first hour of somebody without a checkout: the wheel in a fresh environment, commands in an empty folder."""

import json
import re
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from lit_align.cli.packaged_configs import config_names
from lit_align.package_files import FOLDERS
from tests.cli.test_init import write_rows
from tests.proofs import first_hour
from tests.test_installed_plugin import OFFLINE_PIP, environment_variables

ROOT = Path(__file__).parents[1]
SOURCES = (
    "lit_align",
    "configs",
    "plugins",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built from a copy: setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    for name in SOURCES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name, **({"ignore": ignored} if source.is_dir() else {}))
    stale = (
        folder / "build/lib/lit_align/configs/removed.yaml"
    )  # of an earlier build in the same folder
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    command = [sys.executable, "-m", "pip", "wheel", *OFFLINE_PIP, "-w", "dist", "."]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (file,) = (folder / "dist").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The ``bin`` of an environment with the wheel; what it depends on is seen in this environment, not copied."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # a line of a .pth file adds a folder and not that folder's own .pth files, so this checkout is out of sight
    seen = [
        path
        for path in (*site.getsitepackages(), site.getusersitepackages())
        if Path(path).is_dir()
    ]
    (packages / "seen.pth").write_text("\n".join(seen))
    run(folder / "bin", "python", "-m", "pip", "install", *OFFLINE_PIP, str(wheel), cwd=folder)
    return folder / "bin"


def run(programs: Path, name: str, *arguments: str, cwd: Path, variables=None, **options) -> str:
    """What a program of the environment prints; ``variables`` are added to those of this process."""
    done = subprocess.run(
        [programs / name, *arguments],
        cwd=cwd,
        env={**environment_variables(), "PATH": f"{programs}:/usr/bin:/bin", **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_the_wheel_has_the_files_of_the_checkout_and_no_others(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for packaged, folder in FOLDERS.items():
        prefix = f"lit_align/{packaged}/"
        in_wheel = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        tracked = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "."],
            cwd=ROOT / folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert in_wheel == set(tracked.stdout.split())
    assert not [name for name in names if name.startswith(("configs", "plugins", "tests", "setup"))]


def test_every_config_is_found_where_there_is_no_checkout(installed, tmp_path):
    code = (
        "import json, lit_align\n"
        "from lit_align.cli.packaged_configs import config_names, find_config\n"
        "from lit_align.package_files import find_file\n"
        "texts = {name: find_config(name).read_text() for name in config_names()}\n"
        "print(json.dumps([lit_align.__file__, texts, open(find_file('configs/tiny/pairs.jsonl')).read()]))"
    )
    file, texts, pairs = json.loads(run(installed, "python", "-c", code, cwd=tmp_path))
    assert Path(file).is_relative_to(installed.parent)
    for name in config_names():
        assert texts.pop(name) == (ROOT / "configs" / f"{name}.yaml").read_text()
    assert not texts
    assert pairs == (ROOT / "configs/tiny/pairs.jsonl").read_text()


ONE_PROCESS = """
import json, sys
from lit_align.__main__ import main
for words in json.loads(sys.argv[1]):
    print("$", *words)
    main(words)
"""
"""Commands one after the other, of which each alone would import everything again."""


def test_init_inspect_fit_export_and_chat(installed, tiny, tmp_path):
    write_rows(tmp_path / "my.jsonl", "pairs")
    assert "  dpo " in run(installed, "lit-align", "init", cwd=tmp_path)
    commands = [
        ["init", "dpo", "--base", str(tiny), "--data", "my.jsonl", "--card", "24"],
        ["inspect", "-c", "dpo.yaml", "--card", "24"],
        ["fit", "-c", "dpo.yaml"],
        ["export", "runs/dpo/0", "exported"],
        ["chat", "runs/dpo/0", "--max_new_tokens", "3"],
    ]
    words = ("-c", ONE_PROCESS, json.dumps(commands))
    printed = run(installed, "python", *words, cwd=tmp_path, input="Hi\n")
    outputs = dict(
        zip(("", "init", "inspect", "fit", "export", "chat"), printed.split("$ "), strict=True)
    )
    for command in commands[1:3]:  # what init says is next
        assert f"lit-align {' '.join(command)}\n" in outputs["init"]
    assert "It fits: " in outputs["inspect"]
    assert f"Preference · DPO(beta=0.1) · {tiny}" in outputs["fit"]
    assert (tmp_path / "exported/adapter_model.safetensors").exists()
    assert len(outputs["chat"].splitlines()) > 1


def test_new_plugins_pass_their_tests_and_install(installed, tmp_path):
    names = {"objective": "my-loss", "reward": "lit-align-mine"}
    for kind, name in names.items():
        run(installed, "lit-align", "init", "plugin", name, "--kind", kind, cwd=tmp_path)
    tests = ("-m", "pytest", "-q", "--import-mode=importlib", *names.values())
    sources = {"PYTHONPATH": ":".join(names.values())}
    assert "2 passed" in run(installed, "python", *tests, cwd=tmp_path, variables=sources)
    folders = [f"./{name}" for name in names.values()]
    run(installed, "python", "-m", "pip", "install", *OFFLINE_PIP, *folders, cwd=tmp_path)
    listed = json.loads(run(installed, "lit-align", "plugins", "--json", cwd=tmp_path))
    provided = {row["name"]: row["provides"] for row in listed if row["name"] in names.values()}
    assert provided == {
        "my-loss": {"objective": ["MyLoss"]},
        "lit-align-mine": {"reward": ["Mine"]},
    }


def test_the_transcript_is_of_these_commands_and_ends_within_fifteen_minutes():
    text = first_hour.TRANSCRIPT.read_text()
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert commands[-len(first_hour.COMMANDS) :] == list(first_hour.COMMANDS)
    assert "Traceback" not in text
    (minutes,) = re.findall(r"From nothing to here: ([\d.]+) minutes", text)
    assert float(minutes) <= 15
