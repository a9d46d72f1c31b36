"""Loggers by a word: what is made of them, what is refused, and that metrics reach them."""

import json
import os
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_align.__main__ import BARS_OFF
from lit_align.cli.loggers import PACKAGES, make_loggers
from lit_align.cli.main import main
from tests.stages.runs import ROOT, arguments, folder_of, write_pairs

SERVICES = ("wandb", "mlflow", "comet", "trackio")
FIT = [
    *("fit", "--model=Preference", "--model.objective=DPO", "--model.base.path=none"),
    *("--data=Comparisons", "--data.train=none.jsonl", "--trainer.accelerator=cpu"),
]


def is_missing(word: str) -> bool:
    return find_spec(PACKAGES[word][0]) is None


@pytest.mark.parametrize(
    ("setting", "classes"),
    [
        (None, [CSVLogger, TensorBoardLogger]),
        (True, [CSVLogger, TensorBoardLogger]),
        ("csv", [CSVLogger]),
        ("tensorboard", [CSVLogger, TensorBoardLogger]),
        (["tensorboard", "csv"], [TensorBoardLogger, CSVLogger]),
        (["csv", "csv"], [CSVLogger]),
    ],
)
def test_words_become_loggers_that_write_into_the_run_folder(setting, classes, tmp_path):
    loggers = make_loggers(setting, tmp_path)
    assert [type(logger) for logger in loggers] == classes
    assert {Path(logger.log_dir) for logger in loggers} == {tmp_path}


def test_loggers_that_are_no_words_stay_as_they_are(tmp_path):
    logger = CSVLogger(tmp_path / "elsewhere")
    assert make_loggers(logger, tmp_path) is logger
    assert make_loggers([logger], tmp_path) == [logger]
    assert make_loggers(False, tmp_path) is False
    assert make_loggers([logger, "tensorboard"], tmp_path)[0] is logger


def refused(more, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*FIT, *more])
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if " available: " not in line]


@pytest.mark.parametrize("word", SERVICES)
@pytest.mark.parametrize("form", ["word", "list", "class", "class with settings"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(word, form, capsys):
    if not is_missing(word):
        pytest.skip(f"{word} is installed")
    names = {"wandb": "WandbLogger", "mlflow": "MLFlowLogger", "comet": "CometLogger"}
    if "class" in form and word not in names:
        pytest.skip("Lightning has no class for it")
    settings = {
        "word": word,
        "list": f"[csv,{word}]",
        "class": f"lightning.pytorch.loggers.{names.get(word)}",
        "class with settings": json.dumps([{"class_path": names.get(word), "init_args": {}}]),
    }
    name = names[word] if "class" in form else word
    package = PACKAGES[word][1]
    assert refused([f"--trainer.logger={settings[form]}"], capsys) == [
        f"lit-align: trainer.logger is {name}, and the package {package} is not installed; run `pip install {package}`,"
        " or choose csv or tensorboard"
    ]


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("wanndb", "did you mean wandb?"),
        ("[csv,tensorbord]", "did you mean tensorboard?"),
        ("banana", "there are comet, csv, mlflow, tensorboard, trackio, wandb"),
    ],
)
def test_a_word_that_is_none_is_answered_with_those_there_are(setting, hint, capsys):
    (line,) = refused([f"--trainer.logger={setting}"], capsys)
    assert line.endswith(hint)


def test_words_in_a_yaml(tiny, tmp_path, capsys):
    """The saved configuration holds the words; the last lines name TensorBoard only where it has logs."""
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    (tmp_path / "logger.yaml").write_text("trainer: {logger: csv, max_steps: 1}\n")
    main([*arguments(tiny, pairs, tmp_path / "run"), "-c", str(tmp_path / "logger.yaml")])
    folder = folder_of(tmp_path / "run")
    assert "logger: csv\n" in (folder / "config.yaml").read_text()
    assert (folder / "metrics.csv").is_file()
    assert not [*folder.glob("events.*")]
    assert "tensorboard" not in capsys.readouterr().out


@pytest.mark.skipif(is_missing("trackio"), reason="needs the package trackio")
def test_trackio_gets_every_metric(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    main([*arguments(tiny, pairs, tmp_path / "run"), "--trainer.logger=trackio"])
    database = sqlite3.connect(tmp_path / "trackio" / "lit-align.db")
    rows = database.execute("select step, run_name, metrics from metrics order by step").fetchall()
    losses = [(step, name, json.loads(metrics)["loss"]) for step, name, metrics in rows[:6]]
    assert [loss[:2] for loss in losses] == [(step, "run/0") for step in range(6)]
    assert losses[0][2] == pytest.approx(0.6931, abs=1e-4)


def test_a_log_file_holds_no_bars_of_other_libraries(tiny, tmp_path):
    """Those of transformers are drawn while weights load."""
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    environment = {name: value for name, value in os.environ.items() if name not in BARS_OFF}
    process = subprocess.run(
        [
            *(sys.executable, "-m", "lit_align"),
            *arguments(tiny, pairs, tmp_path / "run", "--trainer.max_steps=1"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "it/s" not in process.stdout + process.stderr
    conversion = "from lit_align.__main__ import main; main(['--version'])\nfrom tqdm.auto import tqdm; list(tqdm([1]))"
    process = subprocess.run(
        [sys.executable, "-c", conversion],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stderr == ""
