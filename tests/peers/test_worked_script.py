"""The script of TRL on the page for those who come from there, and the YAML beside it, learn the same."""

import csv
import json
import re
import runpy
from pathlib import Path

import pytest

from lit_align.cli.main import main

pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")

PAGE = Path(__file__).parents[2] / "lit_align/docs/pages/coming_from.md"
ROWS = [
    {
        "prompt": f"{number} plus {number} is",
        "chosen": f" {2 * number}.",
        "rejected": f" hard to say, {number}",
    }
    for number in range(16)
]
SAME = ("loss", "logps/chosen", "logps/rejected")


def block(name: str, model: Path) -> str:
    """A block of the page by the name in its first line, with a small model in place of its own."""
    text = re.search(rf"```\w+\n# {name}\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
    assert text.count("Qwen/Qwen3-0.6B") == 1
    # on a CPU the YAML's dtype is float32
    return text.replace("Qwen/Qwen3-0.6B", str(model)).replace("bf16=True", "bf16=False")


def as_ipo(script: str) -> str:
    """The script with another loss, and TRL's own learning rate and schedule."""
    for line in ("learning_rate=2.0e-4", 'lr_scheduler_type="cosine"', "warmup_steps=0.1"):
        assert script.count(f"    {line},\n") == 1
        script = script.replace(f"    {line},\n", "")
    return script.replace("beta=0.1,", 'beta=0.1, loss_type="ipo",')


@pytest.mark.parametrize("loss", ["DPO", "IPO"])
def test_script_and_yaml_agree(loss, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    script = block("trl_dpo.py", tiny)
    Path("trl_dpo.py").write_text(script if loss == "DPO" else as_ipo(script))
    theirs = runpy.run_path("trl_dpo.py")["trainer"].state.log_history
    steps = [logged for logged in theirs if "loss" in logged]
    Path("from_trl.yaml").write_text(block("from_trl.yaml", tiny))
    command = ["fit", "-c", "from_trl.yaml"]
    if loss == "IPO":
        overlay = re.search(r"```yaml\n# from_trl_ipo.yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[
            1
        ]
        Path("from_trl_ipo.yaml").write_text(overlay)
        command += ["-c", "from_trl_ipo.yaml"]
    main(command)
    with open("runs/dpo/0/metrics.csv") as file:
        ours = [row for row in csv.DictReader(file) if row["loss"]]
    assert len(ours) == len(steps) == 3
    for name in SAME:
        assert float(ours[0][name]) == pytest.approx(steps[0][name], rel=1e-4), name
    for mine, other in zip(ours, steps, strict=True):
        assert float(mine["lr"]) == pytest.approx(other["learning_rate"], abs=1e-9)
