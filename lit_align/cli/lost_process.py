"""The end of a run of several processes when one of them fails or is gone: one sentence, and no process that waits."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist

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

EXCHANGES = (
    "torch.distributed.distributed_c10d",
    "torch.distributed.utils",
    "torch.distributed._functional_collectives",
    "torch.distributed.fsdp._fully_shard._fsdp_collectives",
    "torch.distributed.fsdp._fully_shard._fsdp_param_group",
    "torch.nn.parallel.distributed",
)
"""Modules that raise when an exchange with other processes fails; others of torch.distributed raise for mistakes."""

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
    if not isinstance(error, RuntimeError) or not _have_met():
        return False
    if isinstance(error, torch.OutOfMemoryError):  # of the memory that a gathered weight needs
        return False
    return isinstance(error, dist.DistError) or _raising_module(error) in EXCHANGES


def explain_meeting(error: BaseException) -> str | None:
    """One sentence about processes that have not met, so that there is no run yet; None if it is something else."""
    module = _raising_module(error)
    if (
        not isinstance(error, RuntimeError)
        or _have_met()
        or not module.startswith("torch.distributed.")
    ):
        return None
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if "EADDRINUSE" in str(error):
        return (
            f"the processes of the run cannot meet at port {port} of this machine (MASTER_PORT), which another program "
            "uses; set MASTER_PORT to a free port, the same on all machines of the run, or leave it out on one machine"
        )
    return (
        f"the processes of the run have not met at {host}, port {port} ({_reason(error)}); start as many machines as "
        "trainer.num_nodes, with the MASTER_ADDR and MASTER_PORT of the first"
    )


def _have_met() -> bool:
    return dist.is_available() and dist.is_initialized()


def _raising_module(error: BaseException) -> str:
    """The module whose code raised an exception; empty if it was not raised."""
    module = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
    return module


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
    sentence = f"another process of the run is gone or does not answer ({_reason(error)}), so the run has ended"
    if folder is None or not last_checkpoint(folder).exists():
        return f"{sentence}; nothing was saved before, start it again"
    return (
        f"{sentence}; resume with lit-align fit -c {folder}/config.yaml --ckpt_path "
        f"{last_checkpoint(folder)}"
    )


def _reason(error: BaseException) -> str:
    """The first words of an exception."""
    return " ".join(str(error).split()).partition(". ")[0][:200].rstrip(".")


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
