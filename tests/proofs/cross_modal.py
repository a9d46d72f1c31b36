"""Is aligning an embedder worth it? Real data of several kinds, SmolLM2 cut to two layers, every arm with its own rate.

``python -m tests.proofs.cross_modal RESULTS`` runs what is not yet in the file RESULTS (three quarters of an hour of a
core; it may be stopped and called again), and keeps figures and plot as ``cross_modal.json`` and ``cross_modal.png``
beside this file. Tasks whose files are not there are left out and named. Seconds are those of training, alignment and
the question whether it helps included.
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
from lit_align.orca.modalities.base import existing

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
    command = [
        sys.executable,
        "-m",
        "lit_align",
        "evaluate",
        "cross-modal",
        "--run=run",
        f"--results={results}",
        *how,
    ]
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
        found["all runs"] = {
            key: sum(run.get(key, 0) for run in runs) for key in ("seconds", "cpu_seconds")
        }
        found["published"] = PUBLISHED
        (HERE / "cross_modal.json").write_text(
            json.dumps(found | {"left out": absent + others}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
