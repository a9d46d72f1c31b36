"""Whether a run goes on or how it ended, as it writes into its folder and others read there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lit_align.jsonl import json_text, read_json
from lit_align.models.atomic_folder import replace_file

STATUS = "status.json"
MAX_REASON = 200  # characters

State = Literal["complete", "running", "stopped", "failed", "killed", "unknown"]


def write_status(folder: Path, command: str, state: State, reason: str | None = None) -> None:
    """Write the state of a run; a reader sees the last one or this one, never a part.

    Args:
        folder: of the run.
        command: which runs, such as fit.
        state: of the run.
        reason: why it failed.
    """
    import psutil

    record = {
        "command": command,
        "state": state,
        "reason": None if reason is None else " ".join(reason.split())[:MAX_REASON],
        "host": socket.gethostname(),
        "process": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "written": time.time(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / STATUS, json_text(record))


def read_status(folder: Path) -> dict[str, Any]:
    """The last state that a run has written; a run whose process is gone was killed.

    Args:
        folder: of the run.
    """
    path = folder / STATUS
    if not path.is_file():
        return {"state": "unknown"}
    record = dict(read_json(path))
    if record["state"] == "running" and not _may_run(record):
        record["state"] = "killed"
    return record


def _may_run(record: Mapping[str, Any]) -> bool:
    """Whether the process of a run exists; that of another machine may."""
    import psutil

    if record["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(record["process"])
        started = float(record["process_started"])
        is_same = abs(process.create_time() - started) < 1  # numbers are reused
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # of another user: it exists
        return True
