"""The lowest versions that pyproject.toml allows, or the newest there are, and a sample of the tests with them.

``python -m tests.versions lowest`` installs them into ``.cache/lowest``, which comes before the environment's own
packages in a process of its own; ``newest`` likewise. PyTorch stays as it is: only its newest version has a build for
processors on PyPI.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PathDistribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".cache"
LEFT_OUT = ("torch", "lit-align")
SAMPLE = (
    "tests/stages/test_run.py",
    "tests/judges/test_openai_server.py",
    "tests/data/test_prepared_files.py",
    "tests/labelling/test_store.py",
    "tests/callbacks/test_report.py",
)


def requirements() -> list[Requirement]:
    """All dependencies, those of the labelling page and of ORCA included, except for PyTorch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["label"], *extras["orca"]]
    return [wanted for wanted in map(Requirement, lines) if wanted.name not in LEFT_OUT]


def lowest() -> list[str]:
    """The lowest version of each dependency."""
    lines = []
    for requirement in requirements():
        (bound,) = [part for part in requirement.specifier if part.operator in (">=", "==")]
        lines.append(f"{requirement.name}=={bound.version}")
    return lines


def newest() -> list[str]:
    """Each dependency within its bounds, whatever the constraints say."""
    return [f"{wanted.name}{wanted.specifier}" for wanted in requirements()]


def are_installed(lines: list[str], folder: Path) -> bool:
    """Whether a folder has packages that fit."""
    present = {}
    for path in folder.glob("*.dist-info"):
        distribution = PathDistribution(path)
        present[canonicalize_name(distribution.name)] = Version(distribution.version)
    for wanted in map(Requirement, lines):
        version = present.get(canonicalize_name(wanted.name))
        if version is None or version not in wanted.specifier:
            return False
    return True


def install(kind: str) -> Path:
    """A folder with the ``lowest`` or ``newest`` versions."""
    lines = {"lowest": lowest, "newest": newest}[kind]()
    folder = FOLDER / kind
    if kind == "newest" or not are_installed(lines, folder):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--no-deps", "--only-binary=:all:", f"--target={folder}"]
        subprocess.run([*command, *options, *lines], check=True)
    return folder


def main(kind: str, sample: list[str]) -> int:
    """Install, and run the sample; the exit status of pytest."""
    folder = install(kind)
    names = sorted(path.name.removesuffix(".dist-info") for path in folder.glob("*.dist-info"))
    print("with", ", ".join(names), flush=True)
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sample]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] or [*SAMPLE]))
