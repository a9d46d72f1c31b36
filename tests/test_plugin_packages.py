"""The packages under plugins/ pass their own tests against this checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_passes_its_own_tests():
    packages = sorted(path.parent for path in (ROOT / "plugins").glob("*/pyproject.toml"))
    assert len(packages) >= 3
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
        + [str(package / "tests") for package in packages],
        cwd=ROOT / "plugins",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *packages]))},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "passed" in run.stdout
