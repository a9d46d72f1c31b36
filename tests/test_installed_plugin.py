"""The packages in plugins/, installed with pip beside lit_align: found, trained with, saved and read back."""

import json
import os
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest
import torch

from lit_align.data.ledger import Ledger
from lit_align.data.readers import read_rows
from lit_align.errors import Malformed, SetAside
from tests import objective_registry

ROOT = Path(__file__).parent.parent

# every field is stated: a setting that the overlay leaves out would keep the value of the objective before it
OVERLAY = """
model:
  init_args:
    objective: {class_path: RobustDPO, init_args: {beta: 0.2, flipped: 0.05}}
"""

LOAD = """
import sys, lit_align
stage = lit_align.load(sys.argv[1])
print(type(stage).__name__, stage.objective)
print(sum(float(p.double().abs().sum()) for p in stage.adapters.trainable().values()))
"""


OFFLINE_PIP = (
    "--no-deps",
    "--no-build-isolation",
    "--no-index",
    "--quiet",
    "--disable-pip-version-check",
)


def environment_variables() -> dict[str, str]:
    """Those of this process, without what hides plugins or names this checkout; one thread."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LIT_ALIGN_PLUGINS", "PYTHONPATH")
    }
    return {**variables, "OMP_NUM_THREADS": "1"}


class Environment:
    """A fresh virtual environment that also sees the packages of this one, and this checkout."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = folder / "bin" / "python"
        (packages,) = folder.glob("lib/python*/site-packages")
        here = [
            path
            for path in (*site.getsitepackages(), site.getusersitepackages())
            if Path(path).is_dir()
        ]
        (packages / "here.pth").write_text("\n".join([str(ROOT), *here]))

    def run(self, *args: str, **more: str) -> str:
        done = subprocess.run(
            [self.python, *args],
            cwd=ROOT,
            env={**environment_variables(), **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        return done.stdout

    def install(self, *folders: Path) -> None:
        self.run("-m", "pip", "install", *OFFLINE_PIP, *map(str, folders))


def copied(name: str, folder: Path) -> Path:
    """A package's folder to build in: setuptools writes beside the sources."""
    unwanted = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    return Path(shutil.copytree(ROOT / "plugins" / name, folder / name, ignore=unwanted))


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    """With the loss, the layout, and the template under another name."""
    folder = tmp_path_factory.mktemp("installed")
    made = Environment(folder / "venv")
    template = copied("template", folder)
    for path in template.rglob("*.*"):
        text = path.read_text()
        path.write_text(
            text.replace("lit-align-template", "lit-align-mine").replace(
                "lit_align_template", "mine"
            )
        )
    (template / "lit_align_template.py").rename(template / "mine.py")
    made.install(copied("lit-align-zoo", folder), copied("lit-align-pandalm", folder), template)
    return made


ADVANTAGES_OF_ZOO = ("BatchGRPO", "MaxRL", "OptimalTokenBaseline", "ReinforcePlusPlus")


def test_all_are_listed(environment):
    found = json.loads(environment.run("-m", "lit_align", "plugins", "--json"))
    brought = [
        (one["name"], *one["provides"].items()) for one in found if one["version"] == "0.1.0"
    ]
    packaged = {
        name
        for name, cls in objective_registry.classes().items()
        if cls.__module__.startswith("lit_align_zoo")
    }
    assert len(packaged) == 18
    assert sorted(brought) == sorted([
        ("lit-align-mine", ("objective", ["Hinge"])),
        ("lit-align-pandalm", ("format", ["PandaLM"])),
        *(("lit-align-zoo", ("objective", [name])) for name in packaged),
        *(("lit-align-zoo", ("advantage", [name])) for name in ADVANTAGES_OF_ZOO),
    ])  # fmt: skip
    assert not [one for one in found if one["error"]]


def test_a_run_by_short_name_and_its_stage_in_another_process(environment, tiny, tmp_path):
    (tmp_path / "robust.yaml").write_text(OVERLAY)
    said = environment.run(
        *(
            "-m",
            "lit_align",
            "fit",
            "-c",
            "configs/tiny/dpo.yaml",
            "-c",
            str(tmp_path / "robust.yaml"),
        ),
        *(f"--run={tmp_path / 'runs'}", f"--model.base.path={tiny}", "--trainer.accelerator=cpu"),
        "--trainer.enable_progress_bar=false",
    )
    assert "Preference · RobustDPO(beta=0.2, flipped=0.05)" in said
    run = tmp_path / "runs" / "0"
    assert "class_path: lit_align_zoo.robust_dpo.RobustDPO" in (run / "config.yaml").read_text()
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2

    stage, total = environment.run("-c", LOAD, str(run)).splitlines()
    assert stage == "Preference RobustDPO(beta=0.2, flipped=0.05)"
    assert float(total) == sum(
        float(value.double().abs().sum()) for value in saved["state_dict"].values()
    )


def test_every_row_of_the_real_pandalm_set_is_accounted_for(shared_data, monkeypatch):
    """900 rows, of which 6 have a response that is not text; the votes are counted here once more."""
    monkeypatch.syspath_prepend(ROOT / "plugins" / "lit-align-pandalm")
    from lit_align_pandalm import VOTES, PandaLM

    layout, ledger, reasons, kept = PandaLM(), Ledger("pandalm"), {}, []
    for source, row in read_rows(str(shared_data / "pandalm" / "testset-v1.json")):
        assert layout.recognises(row)
        try:
            kept.append((row, layout(row)))
        except (Malformed, SetAside) as error:
            fate = "malformed" if isinstance(error, Malformed) else "set aside"
            ledger.add(source, fate, str(error))
            reasons.setdefault(str(error), []).append(row)
        else:
            ledger.add(source, "kept")
    assert len(kept) + sum(map(len, reasons.values())) == sum(ledger.fates.values()) == 900
    assert len(reasons["'response1' is not text (got bool)"]) == 4
    assert len(reasons["'response2' is not text (got bool)"]) == 2
    assert reasons.keys() <= {
        "'response1' is not text (got bool)",
        "'response2' is not text (got bool)",
        "empty response",
        "empty prompt",
        "both responses are the same",
        "no majority",
    }
    for row, group in kept:
        votes = sorted(row[name] for name in VOTES)
        (pair,) = group.pairs
        assert (
            votes[1] == pair.better + 1
        )  # the median of three votes is the majority's, if there is one
        assert pair.probability == (1.0 if votes[0] in (0, votes[2]) else 2 / 3)
    for row in reasons["no majority"]:
        assert sum(row[name] == 1 for name in VOTES) < 2 > sum(row[name] == 2 for name in VOTES)
