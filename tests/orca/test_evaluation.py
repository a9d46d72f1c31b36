"""The harness of arms: what an arm changes, baselines against scikit-learn, and runs that are made once."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from lit_align.cli.main import main
from lit_align.orca.datamodule import CrossModalData
from lit_align.orca.evaluation import (
    ARMS,
    arm_settings,
    baseline_metrics,
    compare_arms,
    fit_ridge,
    random_convolutions,
)
from lit_align.orca.modalities.images import Images
from lit_align.orca.modalities.tables import Tables

pytest.importorskip("sklearn")


@pytest.fixture
def task(tiny):
    base = {"path": str(tiny), "quantization": "none", "dtype": "float32"}
    how = {"steps": 1, "rows": 40, "folds": 2, "distance": "OTDD"}
    optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1.0, "weight_decay": 0.0}}
    model = {"base": base, "embedder": {"class_path": "Patches", "init_args": {"size": 4}}}
    data = {"train": "digits", "modality": "Images", "limit": 60, "batch_size": 16}
    return {
        "model": {
            "class_path": "CrossModal",
            "init_args": {**model, "alignment": how, "optimizer": optimizer},
        },
        "data": {"class_path": "CrossModalData", "init_args": data},
    }


def test_an_arm_changes_nothing_else(task):
    before = json.dumps(task)
    made = {arm: arm_settings(task, arm, 0.1, 7) for arm in ARMS}
    assert json.dumps(task) == before
    plain = made["naive"]["model"]["init_args"]
    assert plain["optimizer"]["init_args"] == {"lr": 0.1, "weight_decay": 0.0}
    assert (plain["seed"], made["naive"]["data"]["init_args"]["seed"], plain["alignment"]) == (
        7,
        7,
        None,
    )
    for arm, settings in made.items():
        given = settings["model"]["init_args"]
        differ = {name for name in given if given[name] != plain.get(name)}
        assert differ == {"naive": set(), "scratch": {"pretrained"}}.get(arm, {"alignment"})
    alignments = {
        arm: made[arm]["model"]["init_args"]["alignment"] for arm in ("orca", "otdd", "gated")
    }
    assert (alignments["otdd"]["folds"], alignments["gated"]["folds"]) == (0, 2)
    assert alignments["orca"]["distance"]["class_path"] == "ORCA"


def test_the_nearest_neighbour_and_the_ridge_are_those_of_scikit_learn(task):
    from sklearn.linear_model import RidgeClassifier
    from sklearn.neighbors import KNeighborsClassifier

    data = CrossModalData("digits", Images(), limit=60, batch_size=16, seed=3)
    data.setup("test")
    train, test = data.make_batch("train"), data.make_batch("test")
    x, z = train.x.flatten(1), test.x.flatten(1)
    found = baseline_metrics(arm_settings(task, "naive", 1.0, 3)["data"])
    theirs = KNeighborsClassifier(1, algorithm="brute").fit(x, train.y).score(z, test.y)
    assert found["nearest neighbour"] == pytest.approx(theirs, abs=3 / len(z))  # ties
    assert found["random convolutions"] > 0.5
    commonest = train.y.bincount().argmax()
    assert found["mean target"] == pytest.approx(float((test.y == commonest).double().mean()))
    wanted = RidgeClassifier(10.0).fit(x - x.mean(0), train.y).predict(z - x.mean(0))
    classes = torch.nn.functional.one_hot(train.y).double() * 2 - 1
    assert (
        fit_ridge(x - x.mean(0), classes, 10.0)(z - x.mean(0)).argmax(1).numpy() == wanted
    ).mean() > 0.995


def test_numbers_have_baselines_in_the_measure_of_the_arms(tmp_path):
    """Forty rows whose target is 1 or 3 as their sign is: the mean, 2, is 1 off, and neighbours are right."""
    import numpy as np

    signs = np.tile([-1.0, 1.0], 20)
    x = signs[:, None] * np.arange(1, 41)[:, None] + np.zeros((40, 4))
    np.savez(
        tmp_path / "table.npz",
        x_train=x,
        y_train=signs + 2,
        x_test=1.01 * x[30:],
        y_test=signs[30:] + 2,
    )
    given = {
        "train": str(tmp_path / "table.npz"),
        "test": str(tmp_path / "table.npz"),
        "modality": f"{Tables.__module__}.Tables",
        "seed": 0,
    }
    found = baseline_metrics({"class_path": "CrossModalData", "init_args": given})
    assert found["mean target"] == pytest.approx(1.0, abs=1e-6)
    assert found["nearest neighbour"] == pytest.approx(0.0, abs=1e-6)
    assert found["random convolutions"] < 0.5


def test_random_convolutions_are_drawn_from_the_seed_and_measured_on_the_first_set():
    xs = [torch.randn(n, 2, 30, generator=torch.Generator().manual_seed(n)) for n in (20, 5)]
    once, again = random_convolutions(xs, 1), random_convolutions(xs, 1)
    assert torch.equal(once[1], again[1])
    assert once[0].shape == (20, 4000)
    torch.testing.assert_close(once[0].mean(0), torch.zeros(4000), atol=1e-4, rtol=0)


def test_arms_without_a_difference_have_no_p():
    run = {
        "lr": 0.1,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        "metric": "rmse",
        "test_rmse": 0.5,
        "alignment": {"kept": 1},
    }
    found = compare_arms(
        [{**run, "arm": arm, "seed": seed} for arm in ("naive", "otdd") for seed in (0, 1)]
    )
    assert found["otdd"]["against naive"] is None
    assert (found["otdd"]["kept"], found["otdd"]["sd"]) == (2, 0.0)


def test_runs_are_made_once(task, tmp_path, capsys):
    (tmp_path / "digits.yaml").write_text(yaml.safe_dump(task | {"trainer": {"max_steps": 2}}))
    given = [
        *(
            "evaluate",
            "cross-modal",
            "--tasks",
            str(tmp_path / "digits.yaml"),
            "--arms",
            "naive",
            "otdd",
        ),
        *("--lrs", "0.001", "0.003", "--seeds", "2", "--results", str(tmp_path / "runs.jsonl")),
    ]
    main([*given, "--run", str(tmp_path / "run")])
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    runs = [line for line in lines if "metric" in line]
    assert len(runs) == 6  # two rates of one seed, and a second seed, in two arms
    assert len(lines) == len({line["key"] for line in lines}) == 8  # and baselines of two seeds
    assert all(run["seconds"] > 0 and 0 <= run["test_accuracy"] <= 1 for run in runs)
    found = json.loads((tmp_path / "run/0/cross_modal.json").read_text())["digits"]
    chosen = min(
        (run for run in runs if run["arm"] == "naive" and run["seed"] == 0),
        key=lambda run: run["eval_loss"],
    )
    assert found["arms"]["naive"]["lr"] == chosen["lr"]
    assert (found["steps"], found["metric"]) == (2, "accuracy")
    assert (tmp_path / "run/0/cross_modal.png").exists()
    capsys.readouterr()
    main([*given, "--run", str(tmp_path / "run")])
    assert json.loads((tmp_path / "run/1/cross_modal.json").read_text())["digits"] == found
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--arms", "nave"], "there is no arm 'nave'; did you mean naive?"),
        (["--steps", "0"], "seeds is 5 and steps 0; both are at least 1"),
        (["--tasks", "none.yaml"], "there is no file none.yaml; give the YAML of a task"),
        ([], "a.yaml has no trainer.max_steps above 0; set it there, or give --steps"),
        (
            ["--tasks", "text.yaml"],
            "text.yaml is of Preference, not of CrossModal; give the YAML of a task",
        ),
        (["--tasks", "empty.yaml"], "empty.yaml has no model and data; give the YAML of a task"),
    ],
)
def test_refusals(more, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("model: {class_path: CrossModal}\ndata: {}\ntrainer:")
    Path("text.yaml").write_text("model: {class_path: Preference}\ndata: {}")
    Path("empty.yaml").write_text("")
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "cross-modal", "--tasks", "a.yaml", *more])
    assert sentence in capsys.readouterr().err
