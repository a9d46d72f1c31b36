"""The end of a run of several processes when one of them fails or is gone: one sentence, and no process that waits."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from lit_align.checkpoint_files import last_checkpoint
from lit_align.cli.run_folder import current_run_folder
from lit_align.errors import (
    AmbiguousName,
    ConfigError,
    DataError,
    LitAlignError,
    OtherProcessFailed,
    UnknownName,
)

TOLD = "lost_process.txt"
"""File in the run folder with the sentence, written by the process that prints it."""

SAME_EVERYWHERE = (ConfigError, UnknownName, AmbiguousName, DataError)
"""Errors that all processes on a machine find in the same settings and data."""

EXCHANGES = ("torch.distributed", "torch.nn.parallel.distributed")
"""Modules that raise when an exchange with other processes fails."""

MAX_SECONDS_LEFT = 20.0
"""Seconds after which a process that has lost the others ends, even if a library waits for them."""


def is_told_elsewhere(error: LitAlignError) -> bool:
    """Whether another process on this machine prints the error, or says what the error is about."""
    if isinstance(error, OtherProcessFailed):
        return True
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"
    return not is_first and isinstance(error, SAME_EVERYWHERE)


def lost_connection(error: BaseException) -> bool:
    """Whether an exception is that of an exchange with other processes that are gone or do not answer."""
    if not isinstance(error, RuntimeError):
        return False
    modules = [
        frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    return bool(modules) and str(modules[-1]).startswith(EXCHANGES)


def end_without_others(error: BaseException) -> NoReturn:
    """End this process with a sentence, which the first of the processes that are left prints.

    Args:
        error: of the exchange with the others.

    Raises:
        SystemExit: with status 1.
    """
    timer = threading.Timer(MAX_SECONDS_LEFT, os._exit, (1,))
    timer.daemon = True
    timer.start()
    folder = current_run_folder()
    sentence = f"lit-align: {_describe(error, folder)}"
    if _is_first_to_tell(sentence, folder):
        print(sentence, file=sys.stderr, flush=True)
    sys.exit(1)


def _describe(error: BaseException, folder: Path | None) -> str:
    reason = " ".join(str(error).split()).partition(". ")[0][:200]
    sentence = (
        f"another process of the run is gone or does not answer ({reason}), so the run has ended"
    )
    if folder is None or not last_checkpoint(folder).exists():
        return f"{sentence}; nothing was saved before, start it again"
    return (
        f"{sentence}; resume with lit-align fit -c {folder}/config.yaml --ckpt_path "
        f"{last_checkpoint(folder)}"
    )


def _is_first_to_tell(sentence: str, folder: Path | None) -> bool:
    if folder is None:
        return True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / TOLD).open("x") as file:
            file.write(f"{sentence}\n")
    except FileExistsError:
        return False
    except OSError:  # the disk may be what was lost
        return True
    return True
