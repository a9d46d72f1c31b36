"""Short forms on the command line: configs by name, and a task without a YAML."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lit_align.__main__ import main
from lit_align.cli.arguments import expand_arguments
from lit_align.cli.packaged_configs import config_names, find_config
from lit_align.cli.tasks import TASKS
from lit_align.errors import ConfigError, UnknownName
from tests.cli.test_init import write_rows

ROOT = Path(__file__).parents[2]


def printed_config(capsys, arguments: list[str]) -> dict:
    """The settings that a command would run with."""
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--print_config"])
    assert not stopped.value.code
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("dpo", "dpo.yaml"),
        ("dpo.yaml", "dpo.yaml"),
        ("tiny/dpo", "tiny/dpo.yaml"),
        ("configs/tiny/dpo.yaml", "tiny/dpo.yaml"),
        ("configs/tiny/pipeline/1-sft", "tiny/pipeline/1-sft.yaml"),
        ("objectives/SimPO", "objectives/SimPO.yaml"),
    ],
)
@pytest.mark.parametrize("option", ["-c {}", "-c={}", "-c{}", "--config {}", "--config={}"])
def test_a_packaged_config_by_name(name, file, option, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command = ["fit", *option.format(name).split(" "), "--save_every", "7"]
    expanded = " ".join(expand_arguments(command))
    assert expanded.endswith(f"{ROOT / 'configs' / file} --save_every 7")


def test_every_packaged_config_is_found_by_the_name_that_is_listed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = config_names()
    assert len(names) == len(list((ROOT / "configs").rglob("*.yaml"))) > 80
    for name in names:
        assert find_config(name) == find_config(f"{name}.yaml") == ROOT / "configs" / f"{name}.yaml"


@pytest.mark.parametrize("name", ["dpo", "dpo.yaml", "tiny/dpo", "configs/dpo.yaml"])
def test_a_file_of_the_working_folder_comes_first(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / name if name.endswith(".yaml") else tmp_path / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("run: mine")
    assert find_config(name).resolve() == file


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dop", "did you mean dpo?"),
        ("tiny/dop.yaml", "did you mean tiny/dpo?"),
        ("objectives/simpo", "did you mean objectives/SimPO?"),
        ("SimPO", "did you mean objectives/SimPO?"),
        ("mein", "did you mean mine.yaml?"),
        ("krto.yaml", "did you mean krt.yaml or kto?"),
    ],
)
def test_a_wrong_name_is_answered_with_the_closest(name, hint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for file in ("mine.yaml", "krt.yaml"):
        (tmp_path / file).write_text("run: mine")
    with pytest.raises(ConfigError) as refused:
        expand_arguments(["fit", "-c", name])
    sentence = str(refused.value)
    assert sentence.startswith(f"there is no file {name} (looked in {tmp_path})")
    assert sentence.endswith(f"; {hint}")  # the other packaged ones are not listed


def test_a_name_that_is_close_to_none_is_answered_with_the_list(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="check the path after -c\n") as refused:
        expand_arguments(["fit", "-c", "what is this"])
    listed = str(refused.value).partition("\n")[2]
    assert ", ranking, rejection_sampling, reward" in listed
    assert re.search(r"^  tiny/: .*\bdpo, iterative_dpo\b", listed, re.MULTILINE)


def test_an_absolute_path_is_no_name(tmp_path):
    with pytest.raises(ConfigError) as refused:
        expand_arguments(["fit", "-c", str(tmp_path / "dpo.yaml")])
    assert (
        str(refused.value) == f"there is no file {tmp_path / 'dpo.yaml'}; check the path after -c"
    )


@pytest.mark.parametrize(
    "value", ["{run: a}", "run: a", "https://a.b/c.yaml", "run: a\nsave_every: 2"]
)
def test_settings_that_are_written_out_are_no_name(value):
    assert expand_arguments(["fit", "-c", value]) == ["fit", "-c", value]


@pytest.mark.parametrize("command", ["chat", "label", "judge", "export"])
def test_other_commands_keep_their_arguments(command):
    arguments = [command, "-c", "nothing", "--base", "x", "--task", "y"]
    assert expand_arguments(arguments) == arguments


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_its_packaged_config_with_base_and_data(task, monkeypatch, tmp_path, capsys):
    """All settings but those that the options stand for are those of the config itself."""
    monkeypatch.chdir(tmp_path)
    usual = printed_config(capsys, ["fit", "-c", task.config])
    config = printed_config(
        capsys,
        ["fit", "--base=tiny", "--task", task.name, "--save_every=9", "--data", "a.csv", "b.csv"],
    )
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["base"]["path"] == "tiny"
    assert data["train"] == ["a.csv", "b.csv"]
    assert data.get("validation") is None
    assert config["save_every"] == 9
    usual["save_every"], usual["trainer"]["accelerator"] = 9, "auto"
    usual["model"]["init_args"]["base"] |= {"path": "tiny", "dtype": "auto"}
    usual["data"]["init_args"]["train"] = ["a.csv", "b.csv"]
    if "validation" in usual["data"]["init_args"]:
        usual["data"]["init_args"]["validation"] = None
    assert config == usual


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ("--task dop --base x --data y", UnknownName, "no task is called 'dop'; did you mean dpo?"),
        ("--task label --base x --data y", UnknownName, "no task is called 'label'"),
        ("--task dpo --data y", ConfigError, "--task needs --base too"),
        ("--task dpo --base x", ConfigError, "--task needs --data too"),
        ("--task --base x --data y", ConfigError, "--task needs a name"),
        ("--task dpo --base x z --data y", ConfigError, "--base is given x and z; give it once"),
        ("--base x", ConfigError, "--base goes with --task"),
    ],
)
def test_a_task_that_is_not_complete(arguments, error, sentence):
    with pytest.raises(error, match=sentence):
        expand_arguments(["fit", *arguments.split()])


def test_a_task_trains_by_flags_alone(tiny, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = write_rows(tmp_path / "rows.jsonl", "pairs")
    options = [
        "--trainer.enable_progress_bar=false",
        "--model.base.quantization=none",
        "--run=runs/a",
    ]
    main(["fit", "--task", "dpo", "--base", str(tiny), "--data", str(rows), *options])
    assert (tmp_path / "runs/a/0/summary.json").exists()


def test_a_wrong_name_is_answered_before_anything_heavy_is_imported(tmp_path):
    code = (
        "import sys\nfrom lit_align.__main__ import main\n"
        "try: main(['fit', '-c', 'tiny/dop'])\nexcept SystemExit as error: print(error.code)\n"
        "print('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["2", "False"]
    assert "did you mean tiny/dpo?" in run.stderr
