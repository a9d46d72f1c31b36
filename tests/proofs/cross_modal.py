"""Is aligning an embedder worth it? Real series and images, SmolLM2 cut to three layers, every arm with its own rate.

``python -m tests.proofs.cross_modal RESULTS`` runs what is not yet in the file RESULTS (hours on a CPU; it may be
stopped and called again), and keeps figures and plot as ``cross_modal.json`` and ``cross_modal.png`` beside this file.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TASKS = ("orca_basic_motions", "orca_japanese_vowels", "orca_digits")


def main() -> None:
    """Run, keep."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "lit_align", "evaluate", "cross-modal", f"--run={folder}"),
            *("--tasks", *(f"configs/{task}.yaml" for task in TASKS), f"--results={sys.argv[1]}"),
        ]
        subprocess.run(command, cwd=HERE.parents[1], check=True)
        for file in ("cross_modal.json", "cross_modal.png"):
            shutil.copy(Path(folder, "0", file), HERE / file)


if __name__ == "__main__":
    main()
