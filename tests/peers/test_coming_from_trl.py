"""The settings of a TRL run exist over there, and what the table makes of them is a run here that says the same."""

from dataclasses import fields

import pytest
import yaml

from lit_align.cli.main import main
from lit_align.coming_from_trl import (
    ALTERNATIVES,
    CLASSES,
    EARLIER_CLASSES,
    INIT,
    OBJECTIVE,
    nested,
    rows_of,
)

trl = pytest.importorskip("trl", reason="needs TRL: pip install -e .[peers]")


@pytest.mark.parametrize("kind", CLASSES)
def test_every_setting_is_one_over_there(kind):
    configs = (getattr(trl, f"{kind}Config"), trl.ModelConfig, trl.ScriptArguments)
    known = {field.name for config in configs for field in fields(config)}
    assert {name for row in rows_of(kind) for name in row.trl} <= known


@pytest.mark.parametrize("kind", [*CLASSES, *EARLIER_CLASSES])
def test_a_run_from_the_table_parses_and_says_the_same(kind, capsys, tmp_path):
    dotted = {
        **(CLASSES | EARLIER_CLASSES)[kind],
        **{key: value for row in rows_of(kind) for key, value in row.settings.items()},
    }
    check_parsed(dotted, capsys, tmp_path)


@pytest.mark.parametrize("row", ALTERNATIVES, ids=lambda row: next(iter(row.trl)))
def test_a_row_that_takes_the_place_of_others_parses_too(row, capsys, tmp_path):
    known = {field.name for field in fields(getattr(trl, f"{row.only[0]}Config"))}
    assert set(row.trl) <= known
    usual = {
        f"{OBJECTIVE}.class_path": "PolicyGradient",
        f"{INIT}.base.path": "a/model",
        f"{INIT}.lora.r": 16,
        "data.init_args.train": "rows.jsonl",
        "run": "runs/mine",
    }
    check_parsed({**CLASSES["GRPO"], **usual, **row.settings}, capsys, tmp_path)


def check_parsed(dotted, capsys, tmp_path):
    """The command reads the settings as they are meant."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(nested(dotted)))
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", str(tmp_path / "run.yaml"), "--print_config"])
    assert not stopped.value.code
    found = yaml.safe_load(capsys.readouterr().out)
    for key, wanted in dotted.items():
        value = found
        for part in key.split("."):
            value = value[part]
        assert str(value).endswith(wanted) if key.endswith("class_path") else value == wanted, key
