"""Is the best of more answers better? A real model, held-out prompts, a reward that counts words.

``python -m tests.proofs.best_of`` samples 16 answers to each prompt with the command, and keeps its figures and its
plot as ``best_of.json`` and ``best_of.png`` beside this file.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROMPTS = 24


def main() -> None:
    """Sample, score, keep."""
    with tempfile.TemporaryDirectory() as folder:
        rows = (
            (HERE.parents[1] / "configs/demo/validation.jsonl").read_text().splitlines()[:PROMPTS]
        )
        Path(folder, "prompts.jsonl").write_text("\n".join(rows) + "\n")
        command = [
            *(
                sys.executable,
                "-m",
                "lit_align",
                "predict",
                "-c",
                "configs/tiny/dpo.yaml",
                f"--run={folder}/run",
            ),
            *(
                f"--data.validation={folder}/prompts.jsonl",
                "--model.temperature=1",
                "--model.max_new_tokens=48",
            ),
            *(
                "--model.best_of.n=16",
                "--model.best_of.reward=Length",
                "--model.best_of.reward.max_words=12",
            ),
        ]
        subprocess.run(command, cwd=HERE.parents[1], check=True)
        for file in ("best_of.json", "best_of.png"):
            shutil.copy(Path(folder, "run/0", file), HERE / file)


if __name__ == "__main__":
    main()
