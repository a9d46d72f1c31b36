"""Help leads to every objective, and says of its settings what its docstring says."""

import re
from dataclasses import fields

import pytest
from jsonargparse import ArgumentParser

from lit_align.__main__ import HELP, main
from lit_align.objectives import Objective
from tests import objective_registry

ASKING = "lit-align fit --model Preference --model.objective.help"
ADVERTISED = [line.strip().split("  ")[0] for line in HELP.splitlines() if "help " in line]


@pytest.fixture
def helped(capsys, monkeypatch):
    """What is printed by a command that answers and ends."""
    monkeypatch.setenv("COLUMNS", "10000")  # no sentence is broken

    def run(command, args: list[str]) -> str:
        with pytest.raises(SystemExit) as stopped:
            command(args)
        assert not stopped.value.code
        return capsys.readouterr().out

    return run


def documented(cls: type) -> dict[str, str]:
    """What stands under ``Args`` of a docstring."""
    section = re.search(r"^    Args:\n((?: {5,}.*\n)+)", cls.__doc__, re.MULTILINE)
    entries = re.findall(
        r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", section[1] if section else "", re.MULTILINE
    )
    return {name: " ".join(text.split()) for name, text in entries}


def check(told: str, cls: type) -> None:
    """Each field is an option, and beside it or on the next line stands what the docstring says of it."""
    meaning = documented(cls)
    assert list(meaning) == [field.name for field in fields(cls)]
    for name, text in meaning.items():
        assert re.search(
            rf"^  --objective\.{name} .*\s+{re.escape(text)} \((required, )?type: ",
            told,
            re.MULTILINE,
        )


@pytest.mark.parametrize("name", ["DPO", "KTO", "PlackettLuceDPO", "Mix"])
def test_the_command_explains_an_objective(name, helped):
    check(helped(main, [*ASKING.split()[1:], name]), objective_registry.classes()[name])


def test_every_objective_is_explained(helped):
    parser = ArgumentParser()
    parser.add_argument("--objective", type=Objective)
    for cls in objective_registry.classes().values():
        check(helped(parser.parse_args, [f"--objective.help={cls.__module__}.{cls.__name__}"]), cls)


@pytest.mark.parametrize(
    ("command", "does"), [("fit", "full optimization"), ("predict", "inference")]
)
def test_the_help_of_a_command_says_what_it_does_and_how_to_go_on(command, does, helped):
    told = helped(main, [command, "--help"])
    assert does in told.partition("\n\noptions:")[0]
    assert told.rstrip().splitlines()[-1].startswith(f"{ASKING} DPO shows")


@pytest.mark.parametrize("command", ADVERTISED)
def test_what_the_first_help_leads_to(command, helped):
    assert helped(main, command.split()[1:]).startswith("usage: ")


def test_the_first_help_leads_to_an_objective():
    assert f"{ASKING} DPO" in ADVERTISED


def test_settings_of_the_run_come_before_those_of_the_trainer(helped):
    told = helped(main, ["fit", "--model", "SFT", "--help"])
    parts = ("usage: lit-align fit", "--save_every", "the stage SFT", "gradient_checkpointing")
    parts = (
        *parts,
        "the objective CrossEntropy",
        "the data Demonstrations",
        "--trainer.max_epochs",
    )
    places = [told.index(part) for part in parts]
    assert places == sorted(places)


def test_the_help_of_inspect_begins_with_its_own_options(helped):
    told = helped(main, ["inspect", "--help"])
    parts = (
        "usage: lit-align inspect",
        "--card",
        "--safe",
        "--rounds",
        "the stage Preference",
        "--trainer.",
    )
    places = [told.index(part) for part in parts]
    assert places == sorted(places)
