"""How long a run is, and what it leaves behind in its own folder."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from lightning.pytorch.loggers import CSVLogger

from lit_align.cli.main import main
from lit_align.cli.run_folder import create_run_folder
from tests.stages.runs import DRAWN, arguments, trace, write_pairs


class Elsewhere(CSVLogger):
    """A logger like W&B's: it has no folder of its own, and keeps what it needs in the current one."""

    @property
    def log_dir(self) -> str:
        return "."


def test_a_logger_with_a_folder_of_its_own_takes_nothing_along(tiny, tmp_path, monkeypatch):
    train = write_pairs(tmp_path / "pairs.jsonl")
    run = arguments(
        tiny,
        train,
        tmp_path / "run",
        f"--data.validation={train}",
        "--model.max_new_tokens=1",
        *DRAWN,
    )
    logger = {"class_path": f"{__name__}.Elsewhere", "init_args": {"save_dir": "."}}
    run.append(f"--trainer.logger={json.dumps(logger)}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main([*run, "--trainer.max_steps=1"])
    main(
        ["predict", *run[1:], f"--ckpt_path={tmp_path / 'run' / '0' / 'checkpoints' / 'last.ckpt'}"]
    )
    left = {
        "adapter",
        "checkpoints",
        "config.yaml",
        "ledger.json",
        "ledger_rows.jsonl",
        "report.html",
        "status.json",
        "summary.json",
    }
    assert {path.name for path in (tmp_path / "run" / "0").iterdir()} == left
    assert {path.name for path in (tmp_path / "run" / "1").iterdir()} == {
        "answers.jsonl",
        "config.yaml",
        "ledger.json",
        "ledger_rows.jsonl",
        "status.json",
    }
    assert not {path.name for path in (tmp_path / "here").iterdir()} & {*left, "answers.jsonl"}


def test_steps_go_beyond_one_epoch(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, train, tmp_path / "one"))
    main(arguments(tiny, train, tmp_path / "steps", "--trainer.max_steps=10"))
    assert (len(trace(tmp_path / "one")), len(trace(tmp_path / "steps"))) == (6, 10)


def test_runs_that_begin_together_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_ALIGN_RUN", "")
    (tmp_path / "6").mkdir()
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create_run_folder(tmp_path), range(8)))
    assert sorted(folder.name for folder in folders) == [
        "10",
        "11",
        "12",
        "13",
        "14",
        "7",
        "8",
        "9",
    ]


def test_inspect_makes_no_folder(tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(["inspect", *arguments(tiny, train, tmp_path / "run")[1:]])
    assert not (tmp_path / "run").exists()


def test_a_plot_that_fails_is_a_warning(tiny, tmp_path, monkeypatch):
    train = write_pairs(tmp_path / "pairs.jsonl")
    monkeypatch.setattr("lit_align.callbacks.report.plot_curves", None)
    with pytest.warns(UserWarning, match=r"curves.png could not be drawn: TypeError"):
        main(arguments(tiny, train, tmp_path / "run", "--trainer.max_steps=1", *DRAWN))
    assert (tmp_path / "run" / "0" / "summary.json").exists()


@pytest.mark.parametrize("drawn", [True, False])
def test_curves_are_drawn_unless_the_report_says_otherwise(drawn, tiny, tmp_path):
    train = write_pairs(tmp_path / "pairs.jsonl")
    main(arguments(tiny, train, tmp_path, "--trainer.max_steps=2", *(DRAWN if drawn else ())))
    assert (tmp_path / "0/curves.png").exists() == drawn
    assert ("<svg" in (tmp_path / "0/report.html").read_text()) == drawn


def test_a_report_that_fails_does_not_cost_what_was_trained(tiny, tmp_path, monkeypatch):
    def no_room(*_):
        raise OSError("No space left on device")

    train = write_pairs(tmp_path / "pairs.jsonl")
    monkeypatch.setattr("lit_align.callbacks.report.Report._write", no_room)
    with pytest.raises(SystemExit, match="1"):
        main(arguments(tiny, train, tmp_path / "run", "--trainer.max_steps=1"))
    for file in ("checkpoints/last.ckpt", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "run" / "0" / file).exists()


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_what_only_reads_stops_when_it_is_told_to(command, tiny, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.jsonl", rows=40)
    run = arguments(
        tiny, pairs, tmp_path / "run", f"--data.validation={pairs}", "--model.max_new_tokens=1"
    )
    with pytest.raises(SystemExit) as stopped:
        main([command, *run[1:], "--trainer.callbacks+=tests.stages.callbacks.TerminateEvaluation"])
    assert stopped.value.code == 143
    assert not (tmp_path / "run" / "0" / "checkpoints").exists()
