"""The lowest versions that pyproject.toml allows, and a sample of the tests with them.

``python -m tests.lowest`` installs them into ``.cache/lowest``, which comes before the environment's own packages in a
process of its own. PyTorch stays as it is: only its newest version has a build for processors on PyPI.
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
FOLDER = ROOT / ".cache" / "lowest"
LEFT_OUT = ("torch", "lit-align")
SAMPLE = (
    "tests/stages/test_run.py",
    "tests/judges/test_openai_server.py",
    "tests/data/test_prepared_files.py",
    "tests/labelling/test_store.py",
    "tests/callbacks/test_report.py",
)


def lowest() -> dict[str, str]:
    """The lowest version of each dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = {}
    for line in [*project["dependencies"], *project["optional-dependencies"]["label"]]:
        requirement = Requirement(line)
        if requirement.name not in LEFT_OUT:
            (bound,) = [part for part in requirement.specifier if part.operator in (">=", "==")]
            versions[requirement.name] = bound.version
    return versions


def are_installed(versions: dict[str, str], folder: Path) -> bool:
    """Whether a folder has these packages in these versions."""
    present = {}
    for path in folder.glob("*.dist-info"):
        distribution = PathDistribution(path)
        present[canonicalize_name(distribution.name)] = Version(distribution.version)
    wanted = {canonicalize_name(name): Version(number) for name, number in versions.items()}
    return wanted.items() <= present.items()


def main() -> int:
    """Install, and run the sample; the exit status of pytest."""
    versions = lowest()
    lines = [f"{name}=={version}" for name, version in versions.items()]
    if not are_installed(versions, FOLDER):
        shutil.rmtree(FOLDER, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = ["--no-deps", "--only-binary=:all:", f"--target={FOLDER}"]
        subprocess.run([*command, *options, *lines], check=True)
    print("with", ", ".join(lines), flush=True)
    path = os.pathsep.join([str(FOLDER), str(ROOT)])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SAMPLE]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}).returncode


if __name__ == "__main__":
    sys.exit(main())
