"""The numbered folder of a run: created atomically, shared by its processes, removed if the run is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

VARIABLE = "LIT_ALIGN_RUN"
"""Environment variable that tells the processes that a run starts which folder is theirs."""

SETTINGS_FILES = {"config.yaml", "hparams.yaml", "status.json"}


def create_run_folder(runs: Path) -> Path:
    """Create the next numbered folder in ``runs``; processes that this run starts get the same one."""
    from lightning.pytorch.utilities import rank_zero_only

    if "LOCAL_RANK" in os.environ and VARIABLE in os.environ:
        return Path(os.environ[VARIABLE])
    # processes of another launcher or machine share no environment: they get the folder of rank 0 when training starts
    if getattr(rank_zero_only, "rank", 0) or int(os.environ.get("NODE_RANK", 0)):
        return runs
    earlier = numbered_runs(runs)
    number = int(earlier[-1].name) + 1 if earlier else 0
    while True:
        folder = runs / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another run took the number at the same moment
            number += 1
            continue
        os.environ[VARIABLE] = str(folder)
        return folder


def numbered_runs(runs: Path) -> list[Path]:
    """The folders of runs in ``runs``, the newest last."""
    numbered = [path for path in runs.glob("*") if path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def current_run_folder() -> Path | None:
    """The numbered folder of the run in this process; None before it is created."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def set_run_folder(folder: Path) -> None:
    """Let this process know the folder of its run, which another process has chosen."""
    if current_run_folder() is None:
        os.environ[VARIABLE] = str(folder)


def forget_run_folder() -> None:
    """Forget the folder of an earlier run in this process; a process that a run started keeps its own."""
    if "LOCAL_RANK" not in os.environ:
        os.environ.pop(VARIABLE, None)


def remove_empty_run_folder() -> None:
    """Remove the folder of a run that was refused, unless it holds something to look at, such as a ledger."""
    folder = current_run_folder()
    if folder is None:
        return
    names = {path.name for path in folder.glob("*")}
    event_files = {name for name in names if name.startswith("events.out.")}
    if names - event_files <= SETTINGS_FILES:
        shutil.rmtree(folder, ignore_errors=True)
