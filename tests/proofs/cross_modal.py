"""Is aligning an embedder worth it? Real data of several kinds, two layers of SmolLM2, a learning rate for each arm.

``python -m tests.proofs.cross_modal RESULTS`` runs what is not yet in the file RESULTS (three quarters of an hour of a
core; it may be stopped and called again), and writes metrics and plot as ``cross_modal.json`` and ``cross_modal.png``
beside this file. Tasks whose files are missing are left out and named. Seconds are those of training, alignment and its
cross-validation included.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from lit_align.errors import DataError
from lit_align.orca.modalities.base import resolve_path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = Path(os.environ.get("LIT_ALIGN_DATA", ROOT.parent / "shared" / "data"))
TASKS = [
    f"configs/orca_{name}.yaml"
    for name in ("basic_motions", "japanese_vowels", "digits", "landsat")
]
MORE = [f"configs/orca_{name}.yaml" for name in ("ecg200", "ecg5000", "darcy", "spoken_digits")]
MOLECULES = ROOT / "plugins/lit-align-molecules"
SIGNATURES = "Toth et al., 2023, https://arxiv.org/abs/2311.12214"
BAKE_OFF = "Bagnall et al., 2017, https://arxiv.org/abs/1602.01711"
PUBLISHED = {
    "orca_basic_motions": {"RBF kernel": 0.975, "signature kernel": 1.0, "source": SIGNATURES},
    "orca_japanese_vowels": {"RBF kernel": 0.981, "signature kernel": 0.986, "source": SIGNATURES},
    "orca_digits": {
        "1-NN": 0.98,
        "source": "UCI's optdigits.names, 3823 to train on and all of ours to test on",
    },
    "orca_landsat": {
        "nearest neighbours": 0.906,
        "linear discriminant": 0.829,
        "source": "Statlog (Michie et al., 1994), 4435 to train on and 2000 to test on",
    },
    "orca_ecg200": {"1-NN": 0.88, "COTE": 0.88, "source": BAKE_OFF},
    "orca_ecg5000": {"1-NN": 0.925, "COTE": 0.946, "source": BAKE_OFF},
    "orca_darcy": {
        "FNO": 0.0108,
        "ORCA": 0.00728,
        "source": "Li et al., 2020, https://arxiv.org/abs/2010.08895, and Shen et al., 2023; 85 by 85, ours 16 by 16",
    },
    "orca_spoken_digits": {
        "CNN": 0.97,
        "source": "https://adhishthite.github.io/sound-mnist, a tenth to test on",
    },
    "orca_esol": {
        "XGBoost": 0.582,
        "message passing": 0.7,
        "source": "Jiang et al., 2021, https://doi.org/10.1186/s13321-020-00479-8, a tenth to test on",
    },
}
ONCE = ["--arms", "naive", "gated", "--lrs", "3e-4", "--seeds", "1"]


def find_tasks(tasks: list[str]) -> tuple[list[str], list[str]]:
    """Tasks whose files can be read from this folder, and an error message for each of the others."""
    ready, missing = [], []
    for task in tasks:
        settings = yaml.safe_load((ROOT / task).read_text())["data"]["init_args"]
        try:
            for file in {settings["train"], settings.get("test") or settings["train"]} - {"digits"}:
                resolve_path(file)
            ready.append(str(ROOT / task))
        except DataError as error:
            missing.append(f"{task}: {error}")
    return ready, missing


def compare_arms(tasks: list[str], results: Path, *options: str) -> dict:
    """Metrics of the arms; their plot is in the run folder."""
    command = [
        sys.executable,
        "-m",
        "lit_align",
        "evaluate",
        "cross-modal",
        "--run=run",
        f"--results={results}",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, MOLECULES)))}
    subprocess.run([*command, "--tasks", *tasks], env=environment, check=True)
    return json.loads(max(Path("run").iterdir()).joinpath("cross_modal.json").read_text())


def main() -> None:
    """Run all tasks, and save metrics and plot."""
    results = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the YAMLs name their files from here
        Path("data").symlink_to(DATA)
        tasks, missing = find_tasks(TASKS)
        more_tasks, more_missing = find_tasks([*MORE, "plugins/lit-align-molecules/orca_esol.yaml"])
        for message in missing + more_missing:
            print(f"left out: {message}")
        proof = {"tasks": compare_arms(tasks, results, "--seeds", "3")}
        shutil.copy("run/0/cross_modal.png", HERE)
        proof["once each"] = compare_arms(more_tasks, results, *ONCE)
        runs = [json.loads(line) for line in results.read_text().splitlines()]
        proof["all runs"] = {
            key: sum(run.get(key, 0) for run in runs) for key in ("seconds", "cpu_seconds")
        }
        proof["published"] = PUBLISHED
        (HERE / "cross_modal.json").write_text(
            json.dumps(proof | {"left out": missing + more_missing}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
