"""Is aligning an embedder worth it? Real data of several kinds, SmolLM2 cut to two layers, every arm with its own rate.

``python -m tests.proofs.cross_modal RESULTS`` runs what is not yet in the file RESULTS (about half an hour of a core;
it may be stopped and called again), and keeps figures and plot as ``cross_modal.json`` and ``cross_modal.png`` beside
this file. Tasks whose files are not there are left out and named.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from lit_align.data.modalities.base import existing
from lit_align.errors import DataError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = Path(os.environ.get("LIT_ALIGN_DATA", ROOT.parent / "shared" / "data"))
TASKS = [f"configs/orca_{name}.yaml" for name in ("basic_motions", "japanese_vowels", "digits", "landsat")]
MORE = [f"configs/orca_{name}.yaml" for name in ("ecg200", "ecg5000", "darcy", "spoken_digits")]
MOLECULES = ROOT / "plugins/lit-align-molecules"
PUBLISHED: dict = {}
ONCE = ["--arms", "naive", "gated", "--lrs", "3e-4", "--seeds", "1"]


def there(tasks: list[str]) -> tuple[list[str], list[str]]:
    """Those whose files can be read from this folder, and a sentence about each other."""
    ready, absent = [], []
    for task in tasks:
        given = yaml.safe_load((ROOT / task).read_text())["data"]["init_args"]
        try:
            for file in {given["train"], given.get("test") or given["train"]} - {"digits"}:
                existing(file)
            ready.append(str(ROOT / task))
        except DataError as error:
            absent.append(f"{task}: {error}")
    return ready, absent


def compared(tasks: list[str], results: Path, *how: str) -> dict:
    """Figures of the arms, and their plot in this folder."""
    command = [sys.executable, "-m", "lit_align", "evaluate", "cross-modal", "--run=run", f"--results={results}", *how]
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, MOLECULES)))}
    subprocess.run([*command, "--tasks", *tasks], env=paths, check=True)
    return json.loads(max(Path("run").iterdir()).joinpath("cross_modal.json").read_text())


def main() -> None:
    """Run, keep."""
    results = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the YAMLs name their files from here
        Path("data").symlink_to(DATA)
        tasks, absent = there(TASKS)
        more, others = there([*MORE, "plugins/lit-align-molecules/orca_esol.yaml"])
        for one in absent + others:
            print(f"left out: {one}")
        found = {"tasks": compared(tasks, results, "--seeds", "3")}
        shutil.copy("run/0/cross_modal.png", HERE)
        found["once each"] = compared(more, results, *ONCE)
        runs = [json.loads(line) for line in results.read_text().splitlines()]
        found["all runs"] = {key: sum(run.get(key, 0) for run in runs) for key in ("seconds", "cpu_seconds")}
        found["published"] = PUBLISHED
        (HERE / "cross_modal.json").write_text(json.dumps(found | {"left out": absent + others}, indent=2) + "\n")


if __name__ == "__main__":
    main()
