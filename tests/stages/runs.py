"""Runs of the real command on a tiny model, for tests that kill, resume and multiply them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNDRAWN = (
    "--trainer.callbacks+=lit_align.callbacks.report.Report",
    "--trainer.callbacks.curves=false",
)
DRAWN = ("--trainer.callbacks.curves=true",)
"""Curves take as long to draw as a short run takes otherwise: only tests of them draw them."""
WORDS = "bees make honey in the old garden while rain falls on seven quiet roofs of slate and moss".split()  # noqa: SIM905


def say(k: int, n: int) -> str:
    """n words, different for every k."""
    return " ".join(WORDS[(k * 7 + i * (k + 3)) % len(WORDS)] for i in range(n))


def write_pairs(path: Path, rows: int = 22) -> Path:
    """Pairs of ragged lengths, every one different."""
    with path.open("w") as file:
        for k in range(rows):
            row = {
                "prompt": [{"role": "user", "content": f"{k} {say(k, 2 + k % 5)}?"}],
                "chosen": [{"role": "assistant", "content": say(k + 1, 1 + k % 4)}],
                "rejected": [{"role": "assistant", "content": say(k + 2, 2 + (k * k) % 5)}],
            }
            file.write(json.dumps(row) + "\n")
    return path


def write_chats(path: Path, rows: int = 22) -> Path:
    """Demonstrations of ragged lengths, some of two turns."""
    pairs = path.with_suffix(".pairs")
    write_pairs(pairs, rows)
    with path.open("w") as file:
        for k, line in enumerate(pairs.read_text().splitlines()):
            row = json.loads(line)
            again = [{"role": "user", "content": "And?"}, *row["rejected"]] if k % 3 == 0 else []
            file.write(json.dumps({"messages": [*row["prompt"], *row["chosen"], *again]}) + "\n")
    return path


def arguments(
    tiny: Path, train: Path, run: Path, *more: str, stage: str = "Preference"
) -> list[str]:
    """Command line of a short run on the CPU."""
    data, objective = {
        "Preference": ("Comparisons", "DPO"),
        "SFT": ("Demonstrations", "CrossEntropy"),
    }[stage]
    return [
        "fit",
        f"--run={run}",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        f"--model={stage}",
        f"--model.objective={objective}",
        f"--model.base.path={tiny}",
        "--model.base.quantization=none",
        "--model.base.dtype=float32",
        "--model.lora.r=4",
        "--model.lora.dropout=0.1",
        "--model.optimizer=torch.optim.AdamW",
        "--model.optimizer.lr=0.003",
        f"--data={data}",
        f"--data.train={train}",
        "--data.batch_size=4",
        "--data.token_budget=256",
        "--data.max_length=256",
        *UNDRAWN,
        *more,
    ]


def without_report(words: list[str]) -> list[str]:
    """A command line that has no report of its own, for one that names other callbacks."""
    return [word for word in words if word not in UNDRAWN]


def start(args: list[str], **environment: str) -> subprocess.Popen:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lit_align", *args],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def folder_of(run: Path) -> Path:
    """The newest folder of a run."""
    return max((p for p in run.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def trace(run: Path) -> dict[int, str]:
    """Loss of each step as it was written, so that equal means equal to the last bit."""
    with (folder_of(run) / "metrics.csv").open() as file:
        return {int(row["step"]): row["loss"] for row in csv.DictReader(file) if row.get("loss")}
