"""Exceptions that are no bugs of lit_align, in one sentence: those of a plugin, of Lightning and of the parser."""

from __future__ import annotations

import traceback
from collections.abc import Iterable

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_align.cli.disk import explain_disk
from lit_align.cli.error_messages import explain
from lit_align.cli.lost_process import explain_meeting
from lit_align.cli.setting_homes import RUN_SETTINGS
from lit_align.compat.flex_attention import explain_unfused
from lit_align.plugin_failures import VARIABLE, describe_exception, find_place, origin

REFUSALS = (MisconfigurationException, ValueError)
"""What Lightning raises for a setting of the trainer."""

PACKAGES = ("lit_align", "lightning", "jsonargparse", "torch", "transformers", "peft")


def explain_failure(error: BaseException) -> str | None:
    """One sentence about an exception that is not of lit_align; None if it is a bug.

    Args:
        error: that ended the command.
    """
    sentence = explain_disk(error) if isinstance(error, Exception) else None
    if sentence is not None:
        return sentence
    sentence = explain_foreign_code(error) or explain_unfused(error) or explain_meeting(error)
    if sentence is not None:
        return sentence
    package = _raising_package(error)
    reason = " ".join(str(error).split()).rstrip(".!")
    if package == "lightning" and isinstance(error, REFUSALS):
        return f"the trainer refuses its settings: {reason}; correct them under trainer"
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


def explain_class_error(error: BaseException, settings: Iterable[str] = RUN_SETTINGS) -> str:
    """A sentence about settings that the parser or a class refuses; a ValueError of a class has its own words.

    Args:
        error: of the parser.
        settings: names of the command's own settings.
    """
    return explain_foreign_code(error, passes=ValueError) or explain(str(error), settings)


def _raising_package(error: BaseException) -> str:
    """The innermost package that an exception passed, of those that are told apart here."""
    package = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__")).partition(".")[0]
        package = name if name in PACKAGES else package
    return package
