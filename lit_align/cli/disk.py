"""One sentence for a disk that is full or read-only, and for a file or folder that cannot be opened."""

from __future__ import annotations

from lit_align.checkpoint_files import last_checkpoint
from lit_align.cli.run_folder import current_run_folder
from lit_align.disk_errors import disk_error, error_chain
from lit_align.errors import LitAlignError


def explain_disk(error: Exception) -> str | None:
    """What the system refused, where, and how to go on; None for every other error.

    What fails while a run is closed after another error, such as its log, must not hide that error.
    """
    reason = disk_error(error)
    place = getattr(error, "filename", None)
    if reason is None:
        if not isinstance(error, OSError) or error.errno is None or place is None:
            return None
        return f"{place}: {error.strerror}; change that, and run it again"
    for cause in error_chain(error):
        if isinstance(cause, LitAlignError):
            return str(cause)
    folder = current_run_folder()
    place = place or folder or "the disk"
    if folder is not None and last_checkpoint(folder).is_file():
        return (
            f"{place}: {reason}; change that, and resume with --ckpt_path {last_checkpoint(folder)}"
        )
    return f"{place}: {reason}; change that, and run it again"
