"""The labelling page as a plugin: ``lit-align label`` and ``campaign``, and the feedback that reads its votes."""

from __future__ import annotations

from lit_align.hookspecs import Register, RegisterCommand, hookimpl
from lit_align.labelling.feedback import Human


def label(arguments: list[str]) -> None:
    """Serve the labelling page."""
    from lit_align.labelling.command import run

    run(arguments)


def campaign(arguments: list[str]) -> None:
    """Do rounds of answers, labels, a reward model and a policy."""
    from lit_align.labelling.rounds.command import run

    run(arguments)


@hookimpl
def register_commands(register: RegisterCommand) -> None:
    """Add ``label`` and ``campaign``."""
    register("label", label, "a web page where people compare answers")
    register("campaign", campaign, "rounds of answers, labels, a reward model and a policy")


@hookimpl
def register_feedback(register: Register) -> None:
    """Register the votes of the page as a source of labels."""
    register(Human)
