"""Runs beside each other: what differs, which is best, and which did not come to their end."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_align.__main__ import HELP, main
from lit_align.cli.main import main as run_with_lightning
from lit_align.errors import ConfigError
from lit_align.run_report.comparison import compare_runs, find_runs
from lit_align.run_report.record import read_curves, read_run
from lit_align.run_report.setting_differences import differing_settings
from lit_align.run_report.status import read_status, write_status
from tests.stages.runs import arguments, write_pairs


def config(objective="DPO", lr=1e-4, validation="held.jsonl", **settings):
    """Settings of a run as they stand in its folder."""
    arguments = {
        "objective": {
            "class_path": f"lit_align.objectives.x.{objective}",
            "init_args": {"beta": 0.1},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": lr, "eps": 1e-8}},
        "schedule": None,
        "seed": 0,
        **settings,
    }
    data = {"train": "pairs.jsonl", "validation": validation, "seed": 0}
    return {
        "model": {
            "class_path": "lit_align.stages.preference.Preference",
            "init_args": arguments,
        },
        "data": {"class_path": "Comparisons", "init_args": data},
        "run": f"runs/{lr}",
    }


def write_run(folder, settings, figures=None, steps=100, state="complete", **status):
    """The folder of a run that has logged ``figures``."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    figures = figures or {}
    header, values = (
        ",".join(["step", *figures]),
        ",".join(map(str, [steps - 1, *figures.values()])),
    )
    (folder / "metrics.csv").write_text(f"{header}\n{values}\n")
    if state == "complete":
        summary = {"steps": steps, "seconds": 61.0, "metrics": figures}
        (folder / "summary.json").write_text(json.dumps(summary))
    write_status(folder, "fit", state, **status)


def as_json(capsys, *arguments):
    """What the command prints for programs."""
    main(["runs", *map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_only_what_differs_and_the_best_is_marked(tmp_path, capsys):
    accuracies = {9: 0.5, 10: 0.75, 11: 0.625}
    for number, accuracy in accuracies.items():
        write_run(
            tmp_path / "dpo" / str(number),
            config(lr=number * 1e-5),
            {"eval_rewards/accuracies": accuracy, "loss": 0.1 * number},
        )
    main(["runs", str(tmp_path / "dpo")])
    header, rows, verdict = read_table(capsys.readouterr().out)
    assert header == [
        *("run", "state", "steps", "time"),
        *("eval_rewards/accuracies", "loss", "lr"),
    ]
    assert [row[0] for row in rows] == ["9", "10", "11"]  # as numbers
    assert rows[1] == ["10", "complete", "100", "1 min 1 s", "0.75 best", "1", "0.0001"]
    assert verdict == "The best of the complete runs has the highest eval_rewards/accuracies.\n"
    records = as_json(capsys, tmp_path, "--sort", "eval_rewards/accuracies")
    assert [(row["figures"]["eval_rewards/accuracies"], row["best"]) for row in records] == [
        (0.75, True),
        (0.625, False),
        (0.5, False),
    ]
    assert records[0]["settings"] == {"model.optimizer.lr": 1e-4}
    assert [
        row["settings"]["model.optimizer.lr"] for row in as_json(capsys, tmp_path, "--sort=lr")
    ] == [pytest.approx(number * 1e-5) for number in accuracies]


def read_table(text):
    """Headings and rows of a printed table, and what follows it."""
    lines = text.splitlines(keepends=True)
    rows = [line for line in lines if line[0] in "┃│"]
    cells = [
        [cell.strip() for cell in line.strip("┃│\n").replace("┃", "│").split("│")] for line in rows
    ]
    return cells[0], cells[1:], "".join(lines[lines.index(rows[-1]) + 2 :])


@pytest.mark.parametrize(
    ("other", "path"),
    [
        (config("IPO"), "model.objective"),
        (config(validation="other.jsonl"), "data.validation"),
        (config(label_noise=0.2), "model.label_noise"),
    ],
)
def test_losses_that_are_not_comparable_have_no_best(other, path, tmp_path):
    write_run(tmp_path / "0", config(), {"eval_loss": 0.5})
    write_run(tmp_path / "1", other, {"eval_loss": 0.4})
    (comparison,) = compare_runs(find_runs([tmp_path]))
    assert not any(run.is_best for run in comparison.runs)
    assert comparison.verdict == (
        f"None is marked as the best: the runs differ in {path}, so eval_loss is not comparable."
    )


def test_runs_that_did_not_come_to_their_end_are_shown_and_not_the_best(tmp_path, capsys):
    write_run(tmp_path / "0", config(), {"eval_loss": 0.5})
    write_run(tmp_path / "1", config(lr=1e-3), {"eval_loss": 0.6})
    write_run(tmp_path / "2", config(), {"eval_loss": 0.1}, state="running")  # by this process
    write_run(tmp_path / "3", config(), {"eval_loss": 0.1}, state="stopped")
    reason = "RuntimeError: CUDA\nout of memory"
    write_run(tmp_path / "4", config(), {"eval_loss": 0.1}, state="failed", reason=reason)
    write_run(tmp_path / "5", config(), {"eval_loss": float("nan")})
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "config.yaml").write_text("a: [")
    write_run(tmp_path / "7", config(), {"eval_loss": 0.1}, state="running")
    status = json.loads((tmp_path / "7" / "status.json").read_text())
    status["process_started"] -= 100  # another process had the same number
    (tmp_path / "7" / "status.json").write_text(json.dumps(status))
    main(["runs", str(tmp_path)])
    out = capsys.readouterr().out
    assert "4 failed: RuntimeError: CUDA out of memory\n" in out
    records = as_json(capsys, tmp_path)
    states = ["complete", "complete", "running", "stopped", "failed", "complete", "killed"]
    assert [row["state"] for row in records if row["stage"]] == states
    assert [row["state"] for row in records if not row["stage"]] == ["unreadable"]
    assert [row["run"] for row in records if row["best"]] == [str(tmp_path / "0")]


def test_stages_are_apart(tmp_path, capsys):
    sft = config()
    sft["model"]["class_path"] = "lit_align.stages.sft.SFT"
    write_run(tmp_path / "a" / "0", sft, {"loss": 0.1})
    write_run(tmp_path / "b" / "0", config(), {"loss": 0.5})
    write_run(tmp_path / "b" / "1", config(), {"loss": 0.6})
    records = as_json(capsys, tmp_path / "a", tmp_path / "b")
    assert [(row["stage"], row["best"]) for row in records] == [
        ("SFT", False),
        ("Preference", True),
        ("Preference", False),
    ]


def test_what_is_no_training_run_is_left_out(tmp_path, capsys):
    write_run(tmp_path / "0", config(), {"loss": 0.5})
    write_run(tmp_path / "1", config(), {"loss": 0.5})
    write_status(tmp_path / "1", "predict", "complete")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "config.yaml").write_text("feedback: Judge")
    assert [row["run"] for row in as_json(capsys, tmp_path)] == [str(tmp_path / "0")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no folder nowhere; give a folder of runs"),
        (["empty"], "empty holds no run of fit; give a folder that holds numbered folders"),
        (
            ["dpo", "--sort", "eval_los"],
            "no figure or differing setting is called 'eval_los'; did you mean eval_loss?",
        ),
    ],
)
def test_a_mistake_is_a_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "dpo" / "0", config(), {"eval_loss": 0.5})
    with pytest.raises(SystemExit) as stopped:
        main(["runs", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err


BROKEN = {
    "status.json": ["", "{}", "[]", "null", "3", '{"state": "running"}', '{"state": "runn'],
    "summary.json": ["", "[1]", "null", '{"metrics": []}', '{"metrics": {"loss": "low"}}', "{"],
    "metrics.csv": [
        "",
        "\0",
        "step,loss\nx,y\n",
        "step\n1,2,3\n",
        "loss\n0.5\n",
        "step,loss\ninf,1\n",
    ],
    "config.yaml": [
        "",
        "text",
        "- a\n- b\n",
        "model: SFT",
        "model: [",
        "model: {x: !!python/name:os.x }",
    ],
}


@pytest.mark.parametrize(
    ("name", "content"), [(name, content) for name in BROKEN for content in BROKEN[name]]
)
def test_a_run_whose_files_are_broken_hides_no_other(name, content, tmp_path, capsys):
    """A process may be killed while it writes, and other programs have files of these names."""
    write_run(tmp_path / "0", config(), {"loss": 0.5})
    write_run(tmp_path / "1", config(), {"loss": 0.25})
    (tmp_path / "0" / name).write_text(content)
    states = {row["run"]: row["state"] for row in as_json(capsys, tmp_path)}
    assert states.pop(str(tmp_path / "1")) == "complete"
    is_run = name != "config.yaml" or "{" in content or "[" in content
    assert list(states) == ([str(tmp_path / "0")] if is_run else [])
    main(["runs", str(tmp_path)])
    with suppress(ConfigError):  # its page may be refused, in a sentence
        read_run(tmp_path / "0")


def test_a_file_that_is_a_folder_makes_a_run_unreadable(tmp_path, capsys):
    write_run(tmp_path / "0", config(), {"loss": 0.5})
    (tmp_path / "0" / "metrics.csv").unlink()
    (tmp_path / "0" / "metrics.csv").symlink_to("metrics.csv")  # leads nowhere
    write_run(tmp_path / "1", config())
    assert [row["state"] for row in as_json(capsys, tmp_path)][1] == "complete"


@pytest.mark.parametrize("length", range(14, 27))
def test_a_line_that_is_cut_counts_for_nothing(length, tmp_path):
    text = "step,loss\n0,0.5\n12,0.25\n"
    (tmp_path / "metrics.csv").write_text(text[:length])
    steps, losses = ([0, 12], [0.5, 0.25]) if length >= len(text) else ([0], [0.5])
    expected = {"loss": (steps, losses)} if length >= 16 else {}
    assert read_curves(tmp_path / "metrics.csv") == expected


def test_runs_below_the_settings_of_no_run_are_listed(tmp_path):
    """A project may keep its own config.yaml beside its runs."""
    write_run(tmp_path / "runs" / "0", config(), {"loss": 0.5})
    (tmp_path / "config.yaml").write_text("- other\n")
    assert [run.folder for run in find_runs([tmp_path])] == [tmp_path / "runs" / "0"]


def test_a_run_is_listed_once(tmp_path, monkeypatch):
    for number in (9, 10):
        write_run(tmp_path / "runs" / str(number), config(), {"loss": 0.5})
    monkeypatch.chdir(tmp_path)
    folders = [Path("runs"), Path("runs/9"), tmp_path / "runs", Path("runs")]
    assert [run.folder for run in find_runs(folders)] == [Path("runs/9"), Path("runs/10")]


@pytest.mark.parametrize("command", [["chat"], ["report"]])
def test_of_runs_in_a_folder_the_newest_is_suggested(command, tmp_path, capsys):
    for number in (9, 10):
        write_run(tmp_path / str(number), config())
    with pytest.raises(SystemExit):
        main([*command, str(tmp_path)])
    assert f"such as {tmp_path / '10'}\n" in capsys.readouterr().err


def test_what_a_run_shows_and_saves_is_no_difference(tmp_path):
    shown = {"samples": {"every": 5}, "save_every": 9, "plugin_timeout": 3.0}
    others = {**shown, "trainer": {"logger": {"class_path": "WandbLogger", "init_args": {}}}}
    plain = {"samples": None, "save_every": 50, "plugin_timeout": 60.0, "trainer": {"logger": True}}
    assert differing_settings([others, plain]) == {}


def test_it_starts_without_torch(tmp_path):
    write_run(tmp_path / "0", config(), {"loss": 0.5})
    code = (
        "import sys; from lit_align.__main__ import main; main(sys.argv[1:]); "
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'lightning'} & set(sys.modules)))"
    )
    assert not subprocess.run([sys.executable, "-c", code, "runs", tmp_path]).returncode
    assert "lit-align runs FOLDER" in HELP


def test_a_run_writes_how_it_ends(tiny, tmp_path, capsys):
    """Also one that fails while it trains, in which another state is written."""
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    usual = arguments(tiny, pairs, tmp_path / "run", "--trainer.max_steps=1")
    run_with_lightning(usual)
    status = read_status(tmp_path / "run" / "0")
    assert (status["command"], status["state"]) == ("fit", "complete")
    with pytest.raises(SystemExit):
        run_with_lightning([*usual, f"--trainer.callbacks+={__name__}.Failing"])
    with pytest.raises(SystemExit):
        run_with_lightning([*usual, f"--trainer.callbacks+={__name__}.Stopped"])
    capsys.readouterr()
    states = [(row["state"], row["reason"]) for row in as_json(capsys, tmp_path / "run")]
    assert states == [
        ("complete", None),
        ("failed", "RuntimeError: a fault"),
        ("stopped", None),
    ]


class Failing(Callback):
    """Fails in the first step, while the run says that it goes on."""

    def on_train_batch_start(self, trainer, *args):
        assert read_status(Path(trainer.default_root_dir))["state"] == "running"
        raise RuntimeError("a fault")


class Stopped(Callback):
    """Ends as at a signal."""

    def on_train_batch_start(self, *args):
        raise SIGTERMException


TREES = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from("ab"),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from("pqr"), TREES, max_size=3), min_size=2, max_size=3))
def test_runs_differ_exactly_if_some_setting_does(configs):
    """A setting that is null and one that is left out are the same."""

    def without_null(tree):
        if not isinstance(tree, dict):
            return tree
        pruned = {key: without_null(value) for key, value in tree.items()}
        return {key: value for key, value in pruned.items() if value is not None and value != {}}

    differences = differing_settings(configs)
    pruned = [without_null(tree) for tree in configs]
    assert bool(differences) == any(tree != pruned[0] for tree in pruned)
    for values in differences.values():
        assert len(values) == len(configs)
