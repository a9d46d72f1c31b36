"""Exceptions that are no bugs of lit_align, in one sentence: those of a plugin, of Lightning and of the parser."""

from __future__ import annotations

import traceback
from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_align.cli.disk import explain_disk
from lit_align.plugin_failures import VARIABLE, describe_exception, find_place, origin

REFUSALS = (MisconfigurationException, ValueError)
"""What Lightning raises for a setting of the trainer."""


def explain_failure(error: BaseException) -> str | None:
    """One sentence about an exception that is not of lit_align; None if it is a bug.

    Args:
        error: that ended the command.
    """
    sentence = explain_disk(error) if isinstance(error, Exception) else None
    if sentence is not None:
        return sentence
    sentence = explain_foreign_code(error)
    if sentence is not None:
        return sentence
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__")) if frames else ""
    package = module.partition(".")[0]
    reason = " ".join(str(error).split()).rstrip(".!")
    if package == "lightning" and isinstance(error, REFUSALS):
        return f"the trainer refuses its settings: {reason}; correct them under trainer"
    if package == "lightning" and "_interval" in _text_of(
        frames[-1][0].f_code.co_filename, frames[-1][1]
    ):
        return f"trainer.val_check_interval cannot be used: {reason}; give a number of steps over 0, or a share"
    if package == "jsonargparse":
        return (
            f"the settings cannot be read ({describe_exception(error)}): a list or a mapping stands where a setting "
            "takes something else; correct it"
        )
    return None


def explain_foreign_code(error: BaseException, passes: type | tuple[type, ...] = ()) -> str | None:
    """One sentence about an exception in code of a plugin or of the user; None if there is none on its way.

    Args:
        error: that ended the command.
        passes: exceptions whose own words are shown instead.
    """
    place = find_place(error)
    if place is None or isinstance(origin(error, place), passes):
        return None
    raised = describe_exception(origin(error, place))
    owner = place.owner or "the module"
    return f"{owner} failed at {place}: {raised}; correct it there ({VARIABLE}=1 shows the whole traceback)"


def _text_of(path: str, line: int) -> str:
    """A line of a file."""
    lines = Path(path).read_text("utf-8").splitlines()
    return lines[line - 1] if line <= len(lines) else ""
