"""``inspect --safe`` lists what a YAML names and imports none of it."""

import os
import subprocess
import sys
from pathlib import Path

from lit_align.cli.inspect_safe import find_imports

ROOT = Path(__file__).parents[2]
YAML = """
model:
  class_path: Preference
  init_args:
    objective: stranger.Loss
    optimizer: {class_path: torch.optim.AdamW}
data:
  class_path: lit_align.data.datamodules.Comparisons
  init_args: {train: [rows.jsonl, data.json], format: null}
trainer:
  callbacks: [more.yaml]
"""


def write(folder: Path) -> None:
    (folder / "run.yaml").write_text(YAML)
    (folder / "more.yaml").write_text("class_path: stranger.tools.Callback\n")
    (folder / "stranger.py").write_text("from pathlib import Path\nPath('ran').touch()\n")


def test_every_name_with_its_origin(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = ["-c", "run.yaml", "--model.reward=stranger.Reward", "--trainer.max_steps=3"]
    imports = [(entry.name, entry.origin) for entry in find_imports(options)]
    stranger = str(tmp_path / "stranger.py")
    assert imports == [
        ("stranger.Loss", stranger),
        ("torch.optim.AdamW", "torch"),
        ("lit_align.data.datamodules.Comparisons", "lit-align"),
        ("stranger.tools.Callback", stranger),
        ("stranger.Reward", stranger),
    ]


def test_the_command_runs_none_of_it(tmp_path):
    write(tmp_path)
    command = [sys.executable, "-m", "lit_align", "inspect", "--safe", "-c", "run.yaml"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    listed = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "stranger.Loss" in listed
    assert "Use the YAML of people you trust" in listed
    assert not (tmp_path / "ran").exists()
