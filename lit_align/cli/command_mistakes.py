"""Sentences for a command that does not exist, and for what it needs and was not given."""

from __future__ import annotations

from collections.abc import Sequence

from lit_align.cli.setting_homes import suggestion
from lit_align.cli.tasks import TASKS

COMMANDS_ELSEWHERE = {
    "train": "fit",
    "finetune": "fit",
    "fine-tune": "fit",
    "run": "fit",
    "eval": "evaluate",
    "generate": "predict",
    "sample": "predict",
    "merge": "export --merge",
    "annotate": "label",
    "serve": "chat",
}
"""Commands of other programs, and what they are here."""


def explain_command(command: str, names: Sequence[str]) -> str:
    """The sentence for a command that does not exist.

    Args:
        command: as it was typed.
        names: of all commands.

    Example:
        >>> explain_command("fitt", ["fit", "chat"])
        "there is no command 'fitt'; did you mean fit?"
        >>> explain_command("train", ["fit", "chat"])
        "there is no command 'train'; write lit-align fit"
    """
    if command in COMMANDS_ELSEWHERE:
        return f"there is no command {command!r}; write lit-align {COMMANDS_ELSEWHERE[command]}"
    if command in (task.name for task in TASKS):
        return f"there is no command {command!r}; write lit-align fit --task {command} --base MODEL --data FILE"
    return f"there is no command {command!r}{suggestion(command, names)}"


def explain_missing(keys: Sequence[str]) -> str:
    """The sentence for settings that are needed, and nowhere on the command line.

    Example:
        >>> explain_missing(["data", "model"])
        'there is no data and model; give a YAML that sets it with -c FILE (lit-align init writes one)'
    """
    # else of a command that does not train
    hint = " (lit-align init writes one)" if "model" in keys else ""
    return f"there is no {' and '.join(keys)}; give a YAML that sets it with -c FILE{hint}"
